//! Shapes, what only looks like one, and that no shape is left where it was masked.

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One of each shape; the digits say that they are nobody's.
fn examples() -> Vec<(Shape, String)> {
    let digits = |count: usize| "0123456789".chars().cycle().take(count).collect::<String>();
    vec![
        (Shape::ProviderKey, format!("sk-proj-{}", digits(40))),
        (Shape::ProviderKey, format!("sk-ant-api03-{}", digits(60))),
        (Shape::ProviderKey, format!("gsk_{}", digits(52))),
        (Shape::ProviderKey, format!("AIza{}", digits(35))),
        (Shape::ProviderKey, format!("hf_{}", digits(34))),
        (Shape::ProviderKey, format!("xai-{}", digits(80))),
        (Shape::AwsKey, format!("AKIA{}", digits(16))),
        (Shape::AwsKey, format!("aws_secret_access_key = {}", digits(40))),
        (Shape::GithubToken, format!("ghp_{}", digits(36))),
        (Shape::GithubToken, format!("github_pat_{}", digits(80))),
        (Shape::GitlabToken, format!("glpat-{}", digits(20))),
        (Shape::SlackToken, format!("xoxb-{}", digits(24))),
        (Shape::SlackToken, format!("hooks.slack.com/services/T0/B0/{}", digits(24))),
        (Shape::StripeKey, format!("sk_live_{}", digits(24))),
        (
            Shape::PrivateKey,
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
                digits(64)
            ),
        ),
        (Shape::Jwt, format!("eyJ{0}.eyJ{0}.{0}", digits(20))),
        (Shape::Authorization, format!("Authorization: Bearer {}", digits(24))),
        (Shape::Authorization, format!("\"authorization\": \"Basic {}\"", digits(24))),
        (Shape::Authorization, format!("bearer {}", digits(32))),
        (Shape::WonderKey, format!("wonder_{}_{}", digits(26), digits(52))),
        (Shape::WonderKey, format!("whsec_{}", digits(32))),
        (Shape::UrlPassword, format!("postgres://ann:{}@db.internal/wonder", digits(6))),
    ]
}

#[test]
fn each_shape_is_found_where_it_stands_and_masked() {
    for (shape, example) in examples() {
        for text in
            [example.clone(), format!("my key is {example}, keep it"), format!("({example}")]
        {
            let found = find(&text);
            assert!(matches!(&found[..], [(found, _)] if *found == shape), "{text}: {found:?}");
            let masked = mask(&text);
            assert!(masked.contains(&format!("[masked {shape}]")), "{masked}");
            assert!(!masked.contains("0123"), "{masked}");
        }
    }
}

#[test]
fn what_people_write_is_no_secret() {
    for text in [
        "",
        "task-force-of-the-northern-district",
        "a sk-thing-that-is-only-words-with-hyphens",
        "authorization: ${input.token}",
        "the bearer of this letter is to be let in",
        "https://example.com/a?b=c@d and postgres://db.internal/wonder",
        "Authorization is needed for orders of 100000000000000 and more",
        "AKIA",
        "run_06h2o4gnk1oc74dkc5qf28ie7g",
        "5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c",
        "-----BEGIN CERTIFICATE-----",
    ] {
        assert_eq!(find(text), [], "{text}");
        assert_eq!(mask(text), text);
    }
}

#[test]
fn values_are_told_by_their_pointers_and_members_by_their_names() {
    let key = format!("ghp_{}", "a1".repeat(18));
    let mut value = json!({
        "input": {"a/b": [1, key], "headers": {"X-Api-Key": "opaque-token", "accept": "text/html"}},
        key.clone(): true, "with": {"headers": {"authorization": "${input.token}"}}, "n": 1.5
    });
    let mut found = Vec::new();
    scan(&value, &mut |at, shape| found.push((at.to_owned(), shape)));
    found.sort();
    let expected = [
        (format!("/{key}"), Shape::GithubToken),
        ("/input/a~1b/1".to_owned(), Shape::GithubToken),
        ("/input/headers/X-Api-Key".to_owned(), Shape::Authorization),
    ];
    assert_eq!(found, expected);
    assert_eq!(mask_value(&mut value), 3);
    assert_eq!(value["input"]["a/b"], json!([1, "[masked github_token]"]));
    assert_eq!(value["[masked github_token]"], true);
    assert_eq!(value["with"]["headers"]["authorization"], "${input.token}");
    assert_eq!(mask_value(&mut value), 0);
}

/// Text with secrets in it, glued to anything.
fn text() -> impl Strategy<Value = String> {
    let example = (0..examples().len()).prop_map(|number| examples().swap_remove(number).1);
    let glue = "[ a-zA-Z0-9_./:@=\"'\\[\\]-]{0,12}";
    prop::collection::vec(prop_oneof![example, glue.prop_map(String::from)], 0..8)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_shape_is_left_in_what_is_masked(text in text(), name in text(), other in ".{0,40}") {
        let masked = mask(&text).into_owned();
        prop_assert_eq!(find(&masked), []);
        prop_assert_eq!(mask(&masked), &*masked, "it is masked once");
        let member = if other.len() % 2 == 0 { "authorization" } else { "note" };
        let mut value = json!({"texts": [text.clone(), {name: text.clone()}], member: other, "n": 1});
        mask_value(&mut value);
        let mut left = Vec::new();
        scan(&value, &mut |at, shape| left.push((at.to_owned(), shape)));
        prop_assert_eq!(left, []);
    }

    #[test]
    fn places_are_in_order_and_apart(text in text()) {
        let found = find(&text);
        prop_assert!(found.windows(2).all(|two| two[0].1.end <= two[1].1.start));
        prop_assert!(found.iter().all(|(_, range)| text.is_char_boundary(range.start)));
    }
}
