//! What a definition may emit as a metric: the rules for values and dimensions, for definitions as
//! they are written and for what their expressions come to.

use serde_json::Value;

use crate::limits;

/// A metric's value: a number that isn't beyond [`limits::METRIC_VALUE`].
///
/// # Errors
/// In words, what else it is.
pub fn value(value: &Value) -> Result<f64, String> {
    let number = value.as_f64().ok_or_else(|| {
        format!("{} is no number: a metric's value is one, or ${{…}} that gives one", shown(value))
    })?;
    if number.abs() > limits::METRIC_VALUE {
        let most = limits::METRIC_VALUE;
        return Err(format!("{number} is beyond what a metric takes: use -{most} to {most}"));
    }
    Ok(number)
}

/// The value of a dimension: a text, a number or a boolean, as text; none of null, which leaves the
/// dimension out.
///
/// # Errors
/// In words, why it can't be one.
pub fn dimension(value: &Value) -> Result<Option<String>, String> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            let message = "is no text, number or boolean, as a dimension has to be";
            return Err(format!("{} {message}", shown(value)));
        }
    };
    if text.len() > limits::METRIC_DIMENSION_BYTES || text.chars().any(char::is_control) {
        let most = limits::METRIC_DIMENSION_BYTES;
        let rule = format!("a dimension takes at most {most} bytes without control characters");
        return Err(format!("{} doesn't fit: {rule}", shown(value)));
    }
    Ok(Some(text))
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_a_number_within_bounds() {
        for good in [json!(0), json!(-1.5), json!(1e12), json!(-1_000_000_000_000_i64)] {
            assert_eq!(value(&good), Ok(good.as_f64().expect("a number")));
        }
        for bad in [json!("1"), json!(null), json!(true), json!([1]), json!(1.1e12), json!(-2e300)]
        {
            assert!(value(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dimension_is_a_short_text() {
        let of = |value: Value| dimension(&value);
        assert_eq!(of(json!("eu")), Ok(Some("eu".to_owned())));
        assert_eq!(of(json!("")), Ok(Some(String::new())));
        assert_eq!(of(json!(7)), Ok(Some("7".to_owned())));
        assert_eq!(of(json!(false)), Ok(Some("false".to_owned())));
        assert_eq!(of(json!(null)), Ok(None));
        let most = limits::METRIC_DIMENSION_BYTES;
        assert!(of(json!("x".repeat(most))).is_ok());
        for bad in [json!("x".repeat(most + 1)), json!("a\nb"), json!([]), json!({})] {
            assert!(of(bad.clone()).is_err(), "{bad}");
        }
    }
}
