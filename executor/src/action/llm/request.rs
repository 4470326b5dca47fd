//! What a model is asked, before a provider's format is given to it.

use protocol::task::Work;
use serde_json::{Map, Value, json};

use super::Reply;
use crate::context::{Bound, Context, Prose};
use crate::fault::{Fault, excerpt, invalid, permanent};
use crate::schema;

/// Bytes of a model's wrong answer that go back to it for repair.
const REPAIR_BYTES: usize = 32 * 1024;

/// A rendered request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) system: Option<String>,
    /// Objects with `role` and `content`; other members go to the provider as they are.
    pub(super) messages: Vec<Map<String, Value>>,
    pub(super) tools: Vec<Tool>,
    pub(super) temperature: Option<f64>,
    pub(super) max_tokens: Option<u32>,
    pub(super) schema: Option<Value>,
    /// The answer is asked for piece by piece.
    pub(super) stream: bool,
}

/// The system text and the messages, as in [`Request`].
type Rendered = (Option<String>, Vec<Map<String, Value>>);

/// A tool that the model may call.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tool {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: Option<String>,
    /// JSON Schema of the arguments.
    #[serde(default = "Tool::no_parameters", alias = "schema", alias = "input_schema")]
    pub(super) parameters: Value,
}

impl Tool {
    fn no_parameters() -> Value {
        json!({"type": "object", "properties": {}})
    }
}

pub(super) fn tools(value: Option<Value>) -> Result<Vec<Tool>, Fault> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    serde_json::from_value(value).map_err(|error| invalid("with.tools", error))
}

impl Request {
    /// The same request, with the wrong answer and what is wrong with it.
    pub(super) fn repaired(&self, reply: &Reply, errors: &[String]) -> Self {
        let said = match &reply.value {
            Some(value) => value.to_string(),
            None => reply.text.clone(),
        };
        let ask = format!(
            "That answer does not satisfy the JSON Schema:\n- {}\nAnswer again, with nothing but \
             the corrected JSON value.",
            errors.join("\n- ")
        );
        let mut repaired = self.clone();
        repaired.messages.push(message("assistant", excerpt(&said, REPAIR_BYTES)));
        repaired.messages.push(message("user", &ask));
        repaired
    }

    /// The system text with the demand for JSON in it, for where a provider has no other way.
    pub(super) fn system_with_schema(&self) -> Option<String> {
        let schema = self.schema.as_ref()?;
        let demand = format!(
            "Answer with nothing but one JSON value that satisfies this JSON Schema:\n{schema}"
        );
        Some(match &self.system {
            Some(system) => format!("{system}\n\n{demand}"),
            None => demand,
        })
    }

    /// Whether the schema describes an object, which is all that providers enforce.
    pub(super) fn wants_object(&self) -> bool {
        self.schema.as_ref().is_some_and(|schema| schema["type"] == "object")
    }
}

fn message(role: &str, content: &str) -> Map<String, Value> {
    Map::from_iter([("role".to_owned(), json!(role)), ("content".to_owned(), json!(content))])
}

/// The prose of an action, compiled.
pub(super) struct Prompt {
    system: Option<Prose>,
    body: Body,
    variables: Option<jsonschema::Validator>,
    /// The answer's schema of a prompt spec.
    pub(super) output_schema: Option<Value>,
}

enum Body {
    Text(Prose),
    Messages(Vec<Message>),
    /// Messages that come whole from an expression; they are data, not templates.
    Bound(Bound),
}

struct Message {
    content: Option<Prose>,
    rest: Bound,
}

impl Prompt {
    pub(super) fn compile(with: &Map<String, Value>, work: &Work) -> Result<Self, Fault> {
        let given = ["prompt", "prompt_spec", "messages"].map(|key| with.get(key));
        let system = with.get("system").map(|text| Prose::compile("with.system", text));
        let mut prompt = Self {
            system: system.transpose()?,
            body: Body::Messages(Vec::new()),
            variables: None,
            output_schema: None,
        };
        prompt.body = match given {
            [Some(text), None, None] => Body::Text(Prose::compile("with.prompt", text)?),
            [None, Some(reference), None] => prompt.spec(reference, work)?,
            [None, None, Some(Value::Array(list))] => Body::Messages(
                list.iter()
                    .enumerate()
                    .map(|(at, message)| Message::compile(at, message))
                    .collect::<Result<_, _>>()?,
            ),
            [None, None, Some(value)] => Body::Bound(Bound::compile("with.messages", value)?),
            _ => {
                return Err(invalid("with", "give one of `prompt`, `prompt_spec`, `messages`"));
            }
        };
        Ok(prompt)
    }

    fn spec(&mut self, reference: &Value, work: &Work) -> Result<Body, Fault> {
        let place = "with.prompt_spec";
        let spec = reference
            .as_str()
            .and_then(|reference| work.prompts.get(reference))
            .ok_or_else(|| invalid(place, format!("no prompt spec {reference}")))?;
        if let (None, Some(text)) = (&self.system, &spec.system) {
            self.system = Some(Prose::template(&format!("{place}.system"), text)?);
        }
        let variables = spec.variables_schema.as_ref();
        self.variables = variables
            .map(|schema| schema::compile(&format!("{place}.variables_schema"), schema))
            .transpose()?;
        self.output_schema = spec.output_schema.clone();
        Ok(Body::Text(Prose::template(&format!("{place}.template"), &spec.template)?))
    }

    /// The system text and the messages.
    pub(super) fn render(&self, context: &Context<'_>) -> Result<Rendered, Fault> {
        if let Some(variables) = &self.variables {
            let errors = schema::errors(variables, context.input);
            if !errors.is_empty() {
                let message = "the input doesn't satisfy the prompt spec's variables_schema";
                let mut fault = permanent("variables_mismatch", message);
                fault.detail = json!({ "errors": errors });
                return Err(fault);
            }
        }
        let system = self.system.as_ref().map(|system| system.render(context)).transpose()?;
        let messages = match &self.body {
            Body::Text(text) => vec![message("user", &text.render(context)?)],
            Body::Messages(messages) => {
                messages.iter().map(|m| m.render(context)).collect::<Result<_, _>>()?
            }
            Body::Bound(bound) => serde_json::from_value(bound.eval(context)?)
                .map_err(|_| invalid("with.messages", "give a list of objects"))?,
        };
        let known = |m: &Map<String, Value>| {
            let role = m.get("role").and_then(Value::as_str);
            role.is_some_and(|role| ["system", "user", "assistant", "tool"].contains(&role))
        };
        if messages.is_empty() || !messages.iter().all(known) {
            let why = "give at least one, each with the role system, user, assistant or tool";
            return Err(invalid("with.messages", why));
        }
        Ok((system, messages))
    }
}

impl Message {
    fn compile(at: usize, message: &Value) -> Result<Self, Fault> {
        let place = format!("with.messages.{at}");
        let Value::Object(message) = message else {
            return Err(invalid(&place, "give an object with `role` and `content`"));
        };
        let mut rest = message.clone();
        let content = match message.get("content") {
            Some(text @ Value::String(_)) => {
                rest.remove("content");
                Some(Prose::compile(&format!("{place}.content"), text)?)
            }
            _ => None,
        };
        Ok(Self { content, rest: Bound::compile(&place, &Value::Object(rest))? })
    }

    fn render(&self, context: &Context<'_>) -> Result<Map<String, Value>, Fault> {
        let Value::Object(mut message) = self.rest.eval(context)? else {
            return Err(invalid("with.messages", "give a list of objects"));
        };
        if let Some(content) = &self.content {
            message.insert("content".to_owned(), Value::String(content.render(context)?));
        }
        Ok(message)
    }
}
