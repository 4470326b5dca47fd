//! A route: where it is, who may use it, what it takes and answers.

use axum::http::Method;
use axum::response::Response;
use axum::routing::MethodFilter;
use domain::resource::{Kind, Scope};
use futures::future::BoxFuture;

use crate::call::Call;
use crate::problem::Problem;

/// What a route runs once the request is read and signed in.
pub(crate) type Handler = fn(Call) -> BoxFuture<'static, Result<Response, Problem>>;

/// What a caller must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Nothing: anybody who reaches the port.
    Public,
    Read,
    Run,
    Write,
    Admin,
}

impl Permission {
    /// The scope that an API key needs; `Admin` stands for all of them.
    pub const fn scope(self) -> Option<Scope> {
        match self {
            Self::Public => None,
            Self::Read => Some(Scope::Read),
            Self::Run => Some(Scope::Run),
            Self::Write => Some(Scope::Write),
            Self::Admin => Some(Scope::Admin),
        }
    }
}

/// The methods in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    Post,
    Patch,
    Delete,
}

impl Verb {
    /// The method as HTTP knows it.
    pub const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }

    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Patch => MethodFilter::PATCH,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// A body that a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// JSON of this schema, at most so many bytes.
    Json {
        schema: &'static str,
        limit: usize,
    },
    /// The same, and may be left out.
    Optional {
        schema: &'static str,
        limit: usize,
    },
    /// A definition as YAML or JSON, at most so many bytes.
    Definition {
        limit: usize,
    },
    /// Bytes as they came, at most so many: they are signed.
    Signed {
        limit: usize,
    },
}

impl Body {
    pub(crate) const fn limit(self) -> usize {
        match self {
            Self::None => 0,
            Self::Json { limit, .. }
            | Self::Optional { limit, .. }
            | Self::Definition { limit }
            | Self::Signed { limit } => limit,
        }
    }
}

/// A query parameter: name, what it means, and an example.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: &'static str,
    /// Whether it may stand there more than once.
    pub(crate) repeats: bool,
}

/// One entry of the table of routes.
#[derive(Clone, Copy)]
pub struct Route {
    pub verb: Verb,
    /// The template: `/api/v1/runs/{id}`.
    pub path: &'static str,
    pub permission: Permission,
    pub(crate) handler: Handler,
    pub(crate) kind: Option<Kind>,
    pub(crate) summary: &'static str,
    pub(crate) about: &'static str,
    pub(crate) query: &'static [&'static [Param]],
    pub(crate) body: Body,
    pub(crate) status: u16,
    pub(crate) answer: &'static str,
    pub(crate) waits: bool,
    pub(crate) streams: bool,
    /// It is a WebSocket, which browsers let any page open.
    pub(crate) socket: bool,
    /// Its answer is a stream always, and of another media type than JSON.
    pub(crate) download: Option<&'static str>,
}

impl Route {
    pub(crate) const fn new(
        verb: Verb,
        path: &'static str,
        permission: Permission,
        handler: Handler,
    ) -> Self {
        Self {
            verb,
            path,
            permission,
            handler,
            kind: None,
            summary: "",
            about: "",
            query: &[],
            body: Body::None,
            status: 200,
            answer: "",
            waits: false,
            streams: false,
            socket: false,
            download: None,
        }
    }

    /// Whether it may change something.
    pub(crate) fn is_command(&self) -> bool {
        self.verb != Verb::Get && self.permission != Permission::Read
    }

    pub(crate) const fn says(mut self, summary: &'static str, about: &'static str) -> Self {
        self.summary = summary;
        self.about = about;
        self
    }

    pub(crate) const fn of(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    pub(crate) const fn takes(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    pub(crate) const fn asks(mut self, query: &'static [&'static [Param]]) -> Self {
        self.query = query;
        self
    }

    pub(crate) const fn answers(mut self, status: u16, schema: &'static str) -> Self {
        self.status = status;
        self.answer = schema;
        self
    }

    pub(crate) const fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    pub(crate) const fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Is a WebSocket.
    pub(crate) const fn upgrades(mut self) -> Self {
        self.socket = true;
        self.status = 101;
        self
    }

    /// Answers with a stream of this media type.
    pub(crate) const fn downloads(mut self, media_type: &'static str) -> Self {
        self.download = Some(media_type);
        self
    }

    /// The part of a path that stands where the template has `{name}`; empty where it has none.
    pub(crate) fn segment<'a>(&self, path: &'a str, name: &str) -> &'a str {
        let mut places = self.path.split('/').zip(path.split('/'));
        let wanted = |part: &str| {
            part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) == Some(name)
        };
        places.find(|(part, _)| wanted(part)).map_or("", |(_, text)| text)
    }

    /// Its query parameters.
    pub(crate) fn params(&self) -> impl Iterator<Item = &'static Param> + use<> {
        self.query.iter().flat_map(|group| group.iter())
    }
}
