//! From CEL source to a [`Program`]: parsing, names, macros, limits.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators as op};

use super::InvalidExpression;
use super::function::Function;
use super::node::{Each, Fold, Kind, Node, Operator, Path, Program, Source, Step};
use super::value::Literal;
use crate::limits;

/// Levels of an expression's tree.
const DEPTH: usize = 64;
/// Nested levels that the parser is let into; its frames are large.
const PARSER_DEPTH: u16 = 64;
/// Nesting up to which a source is read on the caller's own stack: one level takes up to 200 KiB
/// in builds without optimization.
const INLINE_NESTING: usize = 2;
/// Bytes of stack for reading what nests deeper.
const STACK: usize = 64 * 1024 * 1024;

pub(super) fn compile(source: &str) -> Result<Program, InvalidExpression> {
    if source.len() > limits::EXPRESSION_BYTES {
        return Err(InvalidExpression::new(format!(
            "the expression has {} bytes, more than {}: split it over `compute` nodes",
            source.len(),
            limits::EXPRESSION_BYTES
        )));
    }
    if super::texts::check_nesting(source)? <= INLINE_NESTING {
        return parsed(source);
    }
    let broken = || InvalidExpression::new("the expression can't be read");
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("expression".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, || parsed(source))
            .map_err(|_| broken())?
            .join()
            .map_err(|_| broken())?
    })
}

fn parsed(source: &str) -> Result<Program, InvalidExpression> {
    // The generated parser has paths that panic on broken input; that must not take a run down.
    let parsed = catch_unwind(AssertUnwindSafe(|| {
        cel::Env::default()
            .parser()
            .enable_optional_syntax(false)
            .enable_ident_escape_syntax(true)
            .max_recursion_depth(PARSER_DEPTH)
            .parse_with_source_info(source)
    }));
    let (tree, info) = match parsed {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(errors)) => return Err(syntax(source, &errors)),
        Err(_) => return Err(InvalidExpression::new("the expression isn't CEL")),
    };
    let mut lowering =
        Lowering { info, sources: Vec::new(), paths: Vec::new(), locals: Vec::new() };
    let root = lowering.node(&tree, 0)?;
    let Lowering { sources, paths, .. } = lowering;
    Ok(Program { source: source.to_owned(), root, sources, paths })
}

fn syntax(source: &str, errors: &cel::ParseErrors) -> InvalidExpression {
    let Some(first) = errors.errors.first() else {
        return InvalidExpression::new("the expression isn't CEL");
    };
    let message: String = first.msg.lines().next().unwrap_or_default().chars().take(200).collect();
    let place = match first.pos {
        (line, column) if line > 1 => format!(" at line {line}, column {column}"),
        (1, column) if column > 0 => format!(" at column {column}"),
        _ => String::new(),
    };
    let shown: String = source.chars().take(80).collect();
    InvalidExpression::new(format!("`{shown}` isn't CEL{place}: {}", lowered(&message)))
}

fn lowered(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

struct Lowering {
    info: SourceInfo,
    sources: Vec<Source>,
    paths: Vec<Path>,
    locals: Vec<String>,
}

type Lowered<T> = Result<T, InvalidExpression>;

impl Lowering {
    fn column(&self, tree: &IdedExpr) -> u32 {
        self.info.offset_for(tree.id).map_or(0, |(start, _)| start.saturating_add(1))
    }

    fn refuse<T>(&self, tree: &IdedExpr, message: &str) -> Lowered<T> {
        Err(InvalidExpression::new(format!("{message} (column {})", self.column(tree))))
    }

    fn node(&mut self, tree: &IdedExpr, depth: usize) -> Lowered<Node> {
        if depth >= DEPTH {
            return self.refuse(tree, "the expression nests deeper than 64 levels: split it");
        }
        let column = self.column(tree);
        if let Some(path) = self.path(tree) {
            return Ok(Node { kind: Kind::Path(path), column });
        }
        let next = depth + 1;
        let kind = match &tree.expr {
            Expr::Literal(literal) => self.literal(tree, literal)?,
            Expr::Ident(name) => match self.local(name) {
                Some(local) => Kind::Local(local),
                None => return self.refuse(tree, &format!("`{name}` can't be read here")),
            },
            Expr::Select(select) if select.test => {
                Kind::Has(self.boxed(&select.operand, next)?, select.field.clone())
            }
            Expr::Select(select) => {
                Kind::Member(self.boxed(&select.operand, next)?, select.field.clone())
            }
            Expr::List(list) => Kind::List(self.nodes(&list.elements, next)?),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else {
                        return self.refuse(tree, "a map needs `key: value`");
                    };
                    entries.push((self.node(&entry.key, next)?, self.node(&entry.value, next)?));
                }
                Kind::Map(entries)
            }
            Expr::Call(_) => self.call(tree, next)?,
            Expr::Struct(_) => return self.refuse(tree, "messages aren't supported: use a map"),
            Expr::Comprehension(_) | Expr::Unspecified => {
                return self.refuse(tree, "the expression is incomplete");
            }
        };
        Ok(Node { kind, column })
    }

    fn boxed(&mut self, tree: &IdedExpr, depth: usize) -> Lowered<Box<Node>> {
        self.node(tree, depth).map(Box::new)
    }

    fn nodes(&mut self, trees: &[IdedExpr], depth: usize) -> Lowered<Vec<Node>> {
        trees.iter().map(|tree| self.node(tree, depth)).collect()
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|local| local == name)
    }

    fn literal(&self, tree: &IdedExpr, literal: &LiteralValue) -> Lowered<Kind> {
        Ok(Kind::Literal(match literal {
            LiteralValue::Null => Literal::Null,
            LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
            LiteralValue::Int(value) => Literal::Int(*value.inner()),
            LiteralValue::UInt(value) => Literal::UInt(*value.inner()),
            LiteralValue::Double(value) => Literal::Double(*value.inner()),
            LiteralValue::String(value) => Literal::Text(value.inner().to_owned()),
            LiteralValue::Bytes(_) => return self.refuse(tree, "bytes aren't supported"),
        }))
    }

    /// The path that a chain of constant selections from a root variable spells.
    fn path(&mut self, tree: &IdedExpr) -> Option<usize> {
        let mut steps = Vec::new();
        let mut at = tree;
        let root = loop {
            match &at.expr {
                Expr::Ident(name) => break name,
                Expr::Select(select) if !select.test => {
                    steps.push(Step::Key(select.field.clone()));
                    at = &select.operand;
                }
                Expr::Call(call) if call.func_name == op::INDEX && call.args.len() == 2 => {
                    steps.push(constant_step(&call.args[1].expr)?);
                    at = &call.args[0];
                }
                _ => return None,
            }
        };
        if self.local(root).is_some() {
            return None;
        }
        steps.reverse();
        let text = path_text(root, &steps);
        if let Some(known) = self.paths.iter().position(|path| path.text == text) {
            return Some(known);
        }
        let member = match steps.first() {
            Some(Step::Key(key)) => Some(key.clone()),
            _ => None,
        };
        if member.is_some() {
            steps.remove(0);
        }
        let source = self.fetched(Source { root: root.clone(), member });
        self.paths.push(Path { text, source, steps });
        Some(self.paths.len() - 1)
    }

    fn fetched(&mut self, source: Source) -> usize {
        self.sources.iter().position(|known| *known == source).unwrap_or_else(|| {
            self.sources.push(source);
            self.sources.len() - 1
        })
    }

    fn call(&mut self, tree: &IdedExpr, depth: usize) -> Lowered<Kind> {
        let Expr::Call(call) = &tree.expr else {
            return self.refuse(tree, "the expression is incomplete");
        };
        let args = &call.args;
        if let Some(operator) = binary(&call.func_name).filter(|_| args.len() == 2) {
            let both = [self.node(&args[0], depth)?, self.node(&args[1], depth)?];
            return Ok(Kind::Binary(operator, Box::new(both)));
        }
        match (call.func_name.as_str(), args.as_slice()) {
            (op::LOGICAL_AND, [left, right]) => {
                Ok(Kind::And(self.boxed(left, depth)?, self.boxed(right, depth)?))
            }
            (op::LOGICAL_OR, [left, right]) => {
                Ok(Kind::Or(self.boxed(left, depth)?, self.boxed(right, depth)?))
            }
            (op::LOGICAL_NOT, [inner]) => Ok(Kind::Not(self.boxed(inner, depth)?)),
            (op::NEGATE, [inner]) => Ok(Kind::Negate(self.boxed(inner, depth)?)),
            (op::CONDITIONAL, [condition, then, otherwise]) => Ok(Kind::If(Box::new([
                self.node(condition, depth)?,
                self.node(then, depth)?,
                self.node(otherwise, depth)?,
            ]))),
            (op::INDEX, [value, index]) => {
                Ok(Kind::Index(self.boxed(value, depth)?, self.boxed(index, depth)?))
            }
            (op::HAS, [inner]) if call.target.is_none() => self.has(tree, inner, depth),
            (name, args) => {
                if let Some(target) = &call.target
                    && let Some(fold) = fold(name, args.len())
                {
                    return self.each(tree, fold, target, args, depth);
                }
                self.function(tree, name, call.target.as_deref(), depth)
            }
        }
    }

    fn has(&mut self, tree: &IdedExpr, inner: &IdedExpr, depth: usize) -> Lowered<Kind> {
        let Expr::Select(select) = &inner.expr else {
            return self.refuse(tree, "has() needs a member, as in has(state.draft)");
        };
        if let Expr::Ident(root) = &select.operand.expr
            && self.local(root).is_none()
        {
            let source = Source { root: root.clone(), member: Some(select.field.clone()) };
            let source = self.fetched(source);
            let text = format!("{root}.{}", select.field);
            if !self.paths.iter().any(|path| path.text == text) {
                self.paths.push(Path { text, source, steps: Vec::new() });
            }
            return Ok(Kind::HasSource(source));
        }
        Ok(Kind::Has(self.boxed(&select.operand, depth)?, select.field.clone()))
    }

    fn each(
        &mut self,
        tree: &IdedExpr,
        fold: Fold,
        target: &IdedExpr,
        args: &[IdedExpr],
        depth: usize,
    ) -> Lowered<Kind> {
        let Expr::Ident(variable) = &args[0].expr else {
            return self.refuse(tree, "a macro's first argument must be a plain variable name");
        };
        let range = self.node(target, depth)?;
        self.locals.push(variable.clone());
        let parts = self.nodes(&args[1..], depth);
        self.locals.pop();
        let mut parts = parts?;
        let Some(body) = parts.pop() else {
            return self.refuse(tree, "the macro needs an expression");
        };
        Ok(Kind::Each(Box::new(Each { fold, range, filter: parts.pop(), body })))
    }

    fn function(
        &mut self,
        tree: &IdedExpr,
        name: &str,
        target: Option<&IdedExpr>,
        depth: usize,
    ) -> Lowered<Kind> {
        let Expr::Call(call) = &tree.expr else {
            return self.refuse(tree, "the expression is incomplete");
        };
        let count = call.args.len() + usize::from(target.is_some());
        let Some((function, arity)) = Function::named(name) else {
            let hint = super::function::closest(name)
                .map_or_else(String::new, |known| format!(", did you mean `{known}`?"));
            return Err(InvalidExpression {
                message: format!(
                    "there is no function `{name}` (column {}){hint}",
                    self.column(tree)
                ),
                undeclared: Some(name.to_owned()),
            });
        };
        if !arity.contains(&count) {
            let wanted = match (arity.start(), arity.end()) {
                (low, high) if low == high => low.to_string(),
                (low, high) => format!("{low} to {high}"),
            };
            let message = format!(
                "`{name}` takes {wanted} values (the one it is called on counted), not {count}"
            );
            return self.refuse(tree, &message);
        }
        let mut args = Vec::with_capacity(count);
        if let Some(target) = target {
            args.push(self.node(target, depth)?);
        }
        args.extend(self.nodes(&call.args, depth)?);
        if function == Function::Matches
            && let Kind::Literal(Literal::Text(pattern)) = &args[1].kind
        {
            super::texts::pattern(pattern)
                .map_err(|error| InvalidExpression::new(error.message))?;
        }
        Ok(Kind::Call(function, args))
    }
}

fn constant_step(index: &Expr) -> Option<Step> {
    match index {
        Expr::Literal(LiteralValue::String(key)) => Some(Step::Key(key.inner().to_owned())),
        Expr::Literal(LiteralValue::Int(index)) => {
            usize::try_from(*index.inner()).ok().map(Step::Index)
        }
        _ => None,
    }
}

fn path_text(root: &str, steps: &[Step]) -> String {
    let mut text = root.to_owned();
    for step in steps {
        match step {
            Step::Key(key) if is_plain(key) => {
                text.push('.');
                text.push_str(key);
            }
            Step::Key(key) => text.push_str(&format!("[{key:?}]")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && !key.as_bytes()[0].is_ascii_digit()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn binary(name: &str) -> Option<Operator> {
    Some(match name {
        op::ADD => Operator::Add,
        op::SUBSTRACT => Operator::Subtract,
        op::MULTIPLY => Operator::Multiply,
        op::DIVIDE => Operator::Divide,
        op::MODULO => Operator::Modulo,
        op::EQUALS => Operator::Equal,
        op::NOT_EQUALS => Operator::NotEqual,
        op::LESS => Operator::Less,
        op::LESS_EQUALS => Operator::LessOrEqual,
        op::GREATER => Operator::Greater,
        op::GREATER_EQUALS => Operator::GreaterOrEqual,
        op::IN => Operator::In,
        _ => return None,
    })
}

fn fold(name: &str, arguments: usize) -> Option<Fold> {
    Some(match (name, arguments) {
        ("map", 2 | 3) => Fold::Map,
        ("filter", 2) => Fold::Filter,
        ("all", 2) => Fold::All,
        ("exists", 2) => Fold::Exists,
        ("exists_one" | "existsOne", 2) => Fold::ExistsOne,
        ("max", 2) => Fold::Max,
        ("min", 2) => Fold::Min,
        ("sum", 2) => Fold::Sum,
        ("sort_by", 2) => Fold::SortBy,
        _ => return None,
    })
}
