//! The pages about errors, as they stand in `docs/errors`.

use crate::reference::escape;

macro_rules! pages {
    ($($code:literal)*) => {
        &[$(($code, include_str!(concat!("../../docs/errors/", $code, ".md")))),*]
    };
}

/// All pages, in the order of their codes.
const PAGES: &[(&str, &str)] = pages! {
    "admission_failed"
    "already_answered"
    "already_exists"
    "already_held"
    "already_paused"
    "answer_too_large"
    "append_too_large"
    "archived"
    "audit_not_signed"
    "body_too_large"
    "body_unreadable"
    "bundle_has_keys"
    "child_concurrency"
    "child_depth"
    "child_failed"
    "child_timeout"
    "comment_too_long"
    "concurrency_dropped"
    "conflict"
    "contended"
    "cost_cap"
    "cross_site_request"
    "cursor_of_another_store"
    "duplicate_key"
    "experiment_change"
    "experiment_differs"
    "experiment_full"
    "forbidden"
    "fork_after_end"
    "fork_child_live"
    "fork_history_differs"
    "fork_node_missing"
    "fork_token"
    "fork_too_long"
    "fork_transitions_differ"
    "fork_while_undoing"
    "gate_not_open"
    "host_not_allowed"
    "idempotency_key_reused"
    "immutable"
    "input_too_deep"
    "input_too_large"
    "internal"
    "invalid_answer"
    "invalid_body"
    "invalid_call"
    "invalid_cursor"
    "invalid_definition"
    "invalid_expression"
    "invalid_header"
    "invalid_input"
    "invalid_json"
    "invalid_limit"
    "invalid_metric"
    "invalid_name"
    "invalid_parameter"
    "invalid_range"
    "invalid_reference"
    "invalid_schema"
    "invalid_signature"
    "invalid_spec"
    "invalid_template"
    "invalid_value"
    "join_disagreement"
    "journal_full"
    "journal_unavailable"
    "json_too_deep"
    "limit_exceeded"
    "lone_surrogate"
    "method_not_allowed"
    "metric_query_too_large"
    "missing_join"
    "missing_key"
    "name_archived"
    "no_such_moment"
    "no_such_node"
    "no_such_token"
    "not_assigned"
    "not_failed"
    "not_found"
    "not_held"
    "not_paused"
    "nul_character"
    "number_out_of_range"
    "overloaded"
    "position_not_reached"
    "position_not_signed"
    "provider_not_allowed"
    "rate_limit_dropped"
    "read_tables_unavailable"
    "reader_too_slow"
    "reason_too_long"
    "reserved_key"
    "retry_undone"
    "run_already_started"
    "run_archived"
    "run_compensating"
    "run_ended"
    "run_held"
    "run_needed"
    "run_not_archived"
    "run_not_ended"
    "run_not_found"
    "self_approval"
    "signal_too_large"
    "spec_too_large"
    "stale_outcome"
    "storage_full"
    "stored_data_unreadable"
    "stubbed"
    "syntax"
    "timeout"
    "too_many_events"
    "too_many_labels"
    "too_many_runs"
    "too_many_signals"
    "trigger_chain_too_deep"
    "trigger_condition"
    "trigger_disabled"
    "trigger_input"
    "unauthenticated"
    "unavailable"
    "unbounded_loop"
    "undeclared_name"
    "unknown_dimension"
    "unknown_group"
    "unknown_key"
    "unknown_metric"
    "unknown_node"
    "unknown_parameter"
    "unknown_reference"
    "unknown_version"
    "unreachable_node"
    "unstorable"
    "unsupported_action"
    "unsupported_media_type"
    "value_too_large"
    "version_mismatch"
    "websocket_required"
    "workflow_disabled"
    "workflow_paused"
};

/// The codes that have a page, in order.
pub fn documented_codes() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(code, _)| *code)
}

/// The source of the page about a code.
pub(crate) fn find(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, source)| *source)
}

/// A page: its Markdown has headings and paragraphs only.
pub(crate) fn html(code: &str, source: &str) -> String {
    let mut body = String::new();
    for paragraph in source.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
        let text = escape(paragraph.trim_start_matches('#').trim());
        let tag = if paragraph.starts_with('#') { "h1" } else { "p" };
        body.push_str(&format!("<{tag}>{}</{tag}>\n", in_code(&text)));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <style>{}</style></head>\n<body><main>{body}<p><a href=\"/docs\">Reference</a></p>\
         </main></body></html>\n",
        escape(code),
        crate::reference::STYLE,
    )
}

/// Texts between backticks become code.
pub(crate) fn in_code(text: &str) -> String {
    let mut out = String::new();
    for (place, part) in text.split('`').enumerate() {
        match place % 2 {
            0 => out.push_str(part),
            _ => out.push_str(&format!("<code>{part}</code>")),
        }
    }
    out
}
