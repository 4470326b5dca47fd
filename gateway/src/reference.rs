//! The reference page: the OpenAPI document as HTML, without scripts and without outside assets.
//!
//! Ready-made viewers were looked at: they bring megabytes of script with fonts, proxies and
//! telemetry elsewhere. This page works offline and under a policy that forbids everything but
//! its own style.

use serde_json::Value;

use crate::error_pages::in_code;

pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:auto;padding:1.5rem}code,pre{font:14px/1.4 ui-monospace,monospace}\
summary{cursor:pointer;padding:.3rem 0}summary b{display:inline-block;min-width:4.5rem}\
details details{margin-left:1rem}section>details{border-bottom:1px solid #8884}\
table{border-collapse:collapse}td{padding:.1rem 1rem .1rem 0;vertical-align:top}\
pre{overflow:auto;background:#8881;padding:.7rem}a{color:inherit}";

/// Text as HTML.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

fn prose(text: &Value) -> String {
    in_code(&escape(text.as_str().unwrap_or_default()))
}

fn pretty(value: &Value) -> String {
    escape(&serde_json::to_string_pretty(value).unwrap_or_default())
}

/// The page of a document.
pub(crate) fn page(document: &Value) -> String {
    let mut tags: Vec<(&str, String)> = Vec::new();
    for (path, verbs) in entries(&document["paths"]) {
        for (verb, operation) in entries(verbs) {
            let tag = operation["tags"][0].as_str().unwrap_or_default();
            let html = operation_html(verb, path, operation);
            match tags.iter_mut().find(|(known, _)| *known == tag) {
                Some((_, section)) => section.push_str(&html),
                None => tags.push((tag, html)),
            }
        }
    }
    let sections: String = tags
        .iter()
        .map(|(tag, html)| format!("<section id=\"{0}\"><h2>{0}</h2>{html}</section>", escape(tag)))
        .collect();
    let schemas: String = entries(&document["components"]["schemas"])
        .map(|(name, schema)| {
            let (name, schema) = (escape(name), pretty(schema));
            let summary = format!("<summary>{name}</summary>");
            format!("<details id=\"schema-{name}\">{summary}<pre>{schema}</pre></details>")
        })
        .collect();
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Wonder API</title>\
         <style>{STYLE}</style></head><body><main><h1>Wonder API</h1><p>{}</p>\
         <p><a href=\"/openapi.json\">OpenAPI document</a></p>{sections}\
         <section><h2>schemas</h2>{schemas}</section></main></body></html>\n",
        prose(&document["info"]["description"]),
    )
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn operation_html(verb: &str, path: &str, operation: &Value) -> String {
    let mut html = format!(
        "<details><summary><b>{}</b> <code>{}</code> {}</summary><p>{}</p>",
        verb.to_uppercase(),
        escape(path),
        prose(&operation["summary"]),
        prose(&operation["description"]),
    );
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        html.push_str("<table>");
        for parameter in parameters {
            html.push_str(&format!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                prose(&parameter["name"]),
                prose(&parameter["in"]),
                prose(&parameter["description"]),
            ));
        }
        html.push_str("</table>");
    }
    let body = &operation["requestBody"];
    if !body.is_null() {
        html.push_str(&format!("<p>Body: {}</p>", prose(&body["description"])));
        html.push_str(&contents(&body["content"]));
    }
    for (status, response) in entries(&operation["responses"]) {
        html.push_str(&format!("<p><b>{status}</b> {}</p>", prose(&response["description"])));
        if status.starts_with('2') {
            html.push_str(&contents(&response["content"]));
        }
    }
    html.push_str("</details>");
    html
}

fn contents(content: &Value) -> String {
    let mut html = String::new();
    for (media, shape) in entries(content) {
        let schema = shape["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let link = schema
            .map(escape)
            .map_or_else(String::new, |name| format!(" <a href=\"#schema-{name}\">{name}</a>"));
        html.push_str(&format!("<p><code>{}</code>{link}</p>", escape(media)));
        if !shape["example"].is_null() {
            html.push_str(&format!("<pre>{}</pre>", pretty(&shape["example"])));
        }
    }
    html
}
