//! The tree that expressions are lowered to.

use super::function::Function;
use super::value::Literal;

/// A compiled source.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) source: String,
    pub(super) root: Node,
    /// What is fetched from the scope: each root, or root and first member, once.
    pub(super) sources: Vec<Source>,
    /// The constant paths, each once, in the order of the source.
    pub(super) paths: Vec<Path>,
}

/// A root variable, or one member of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) root: String,
    pub(super) member: Option<String>,
}

/// `state.list[0].name`: a source and constant steps on from it.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) text: String,
    pub(super) source: usize,
    pub(super) steps: Vec<Step>,
}

#[derive(Debug)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// One node and where it stands in the source.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Column from 1, counted in characters; 0 where unknown.
    pub(super) column: u32,
}

#[derive(Debug)]
pub(super) enum Kind {
    Literal(Literal),
    Path(usize),
    /// A variable of a macro, by its depth.
    Local(usize),
    Member(Box<Node>, String),
    Has(Box<Node>, String),
    /// `has(state.draft)`: whether a source that is a first member exists.
    HasSource(usize),
    Index(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    If(Box<[Node; 3]>),
    Binary(Operator, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Each(Box<Each>),
}

/// A macro that binds a variable to each element of a list, or each key of a map.
#[derive(Debug)]
pub(super) struct Each {
    pub(super) fold: Fold,
    pub(super) range: Node,
    pub(super) filter: Option<Node>,
    pub(super) body: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Map,
    Filter,
    All,
    Exists,
    ExistsOne,
    Max,
    Min,
    Sum,
    SortBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
        }
    }
}
