//! A problem+json answer, and how it reads on a terminal.

use domain::definition::Problem;
use serde::Deserialize;

/// What the server says about a request that it refused or failed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiProblem {
    pub(crate) status: u16,
    pub(crate) title: String,
    pub(crate) detail: String,
    /// Stable, `snake_case`.
    pub(crate) code: String,
    pub(crate) pointer: Option<String>,
    /// What is wrong, place by place.
    pub(crate) errors: Vec<Finding>,
    pub(crate) trace_id: Option<String>,
}

/// One thing that is wrong. All of it is text, so that a server that is newer than this program
/// may find what this program has never heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Finding {
    pub(crate) code: String,
    pub(crate) pointer: String,
    pub(crate) line: Option<u64>,
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl From<Problem> for Finding {
    fn from(problem: Problem) -> Self {
        let Problem { code, pointer, line, message, suggestion } = problem;
        let code = serde_json::to_value(code).ok();
        let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default().to_owned();
        Self { code, pointer, line, message, suggestion }
    }
}

impl ApiProblem {
    /// Reads an answer's body; one that isn't problem+json is shown cut.
    pub(crate) fn read(status: u16, text: &str) -> Self {
        let mut problem = serde_json::from_str::<Self>(text).unwrap_or_default();
        problem.status = status;
        if problem.detail.is_empty() {
            problem.detail = std::mem::take(&mut problem.title);
        }
        if problem.detail.is_empty() {
            let excerpt: String = text.trim().chars().take(200).collect();
            problem.detail = format!("the server answered {status} {excerpt}");
        }
        problem
    }

    /// `error: …` with one line for each place, the code and the trace id.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.detail);
        if let Some(pointer) = &self.pointer {
            text.push_str(&format!("  at {pointer}\n"));
        }
        for finding in &self.errors {
            text.push_str(&format!("  {}\n", line(None, finding)));
        }
        if !self.code.is_empty() {
            text.push_str(&format!("  code {}", self.code));
            if let Some(trace) = self.trace_id.as_deref().filter(|trace| !trace.is_empty()) {
                text.push_str(&format!(" · trace {trace}"));
            }
            text.push('\n');
        }
        text
    }
}

/// One problem as `file:line: pointer: message (suggestion)`.
pub(crate) fn line(file: Option<&str>, problem: &Finding) -> String {
    let mut text = String::new();
    if let Some(file) = file {
        text.push_str(file);
        text.push(':');
    }
    match (problem.line, file) {
        (Some(line), Some(_)) => text.push_str(&format!("{line}: ")),
        (Some(line), None) => text.push_str(&format!("line {line}: ")),
        (None, Some(_)) => text.push(' '),
        (None, None) => {}
    }
    if !problem.pointer.is_empty() {
        text.push_str(&format!("{}: ", problem.pointer));
    }
    text.push_str(if problem.message.is_empty() { &problem.code } else { &problem.message });
    // Some messages name the suggestion themselves.
    let said = |suggestion: &&String| problem.message.contains(&format!("{suggestion:?}"));
    if let Some(suggestion) = problem.suggestion.as_ref().filter(|text| !said(text)) {
        text.push_str(&format!(" ({suggestion})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: Option<u64>, pointer: &str, suggestion: Option<&str>) -> Finding {
        Finding {
            code: "unknown_key".to_owned(),
            pointer: pointer.to_owned(),
            line,
            message: "unknown key `nodez`".to_owned(),
            suggestion: suggestion.map(str::to_owned),
        }
    }

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let whole = problem(Some(7), "/nodez", Some("did you mean `nodes`?"));
        assert_eq!(
            line(Some("a.yaml"), &whole),
            "a.yaml:7: /nodez: unknown key `nodez` (did you mean `nodes`?)"
        );
        assert_eq!(line(Some("a.yaml"), &problem(None, "", None)), "a.yaml: unknown key `nodez`");
        let twice =
            Finding { message: "did you mean \"a\"?".to_owned(), ..problem(None, "", Some("a")) };
        assert_eq!(line(None, &twice), "did you mean \"a\"?");
        assert_eq!(line(None, &problem(Some(7), "", None)), "line 7: unknown key `nodez`");
    }

    #[test]
    fn a_refusal_shows_detail_place_problems_and_code() {
        let body = r#"{"type":"about:blank","title":"Invalid","status":422,
            "detail":"the input does not fit its schema","code":"invalid_input","pointer":"/input",
            "errors":[{"code":"missing_key","pointer":"/input/q","message":"`q` is missing"}],
            "trace_id":"abc"}"#;
        let text = ApiProblem::read(422, body).text();
        assert_eq!(
            text,
            "error: the input does not fit its schema\n  at /input\n  /input/q: `q` is missing\n  \
             code invalid_input · trace abc\n"
        );
    }

    /// As the server writes it, and with a code that this program doesn't know.
    #[test]
    fn every_reason_of_a_refusal_is_told() {
        let body = r#"{"type":"/docs/errors/invalid_definition","title":"invalid definition",
            "status":422,"detail":"the definition has 2 problem(s), listed in errors",
            "code":"invalid_definition","errors":[{"code":"unknown_reference",
            "pointer":"/nodes/a/action/use","message":"there is no action \"scor\"",
            "suggestion":"score"},{"code":"from_the_future","pointer":"/nodes/b",
            "line":4,"message":"unheard of","more":[1]},{"code":"bare"}],
            "trace_id":"abc"}"#;
        assert_eq!(
            ApiProblem::read(422, body).text(),
            "error: the definition has 2 problem(s), listed in errors\n  \
             /nodes/a/action/use: there is no action \"scor\" (score)\n  \
             line 4: /nodes/b: unheard of\n  bare\n  code invalid_definition · trace abc\n"
        );
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_still_shown() {
        let problem = ApiProblem::read(502, "<html>bad gateway</html>");
        assert_eq!(problem.status, 502);
        assert!(problem.text().contains("502 <html>bad gateway"), "{}", problem.text());
    }
}
