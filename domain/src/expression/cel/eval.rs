//! Evaluation: a walk over the tree that pays for each step.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::arithmetic;
use super::function;
use super::node::{Each, Fold, Kind, Node, Path, Program};
use super::value::{List, Object, Text, Val, to_json, too_large};
use super::{EvalError, Fetched, Scope, walk};
use crate::limits;

type Result<T> = std::result::Result<T, EvalError>;

/// The value of a program, as JSON.
pub(super) fn value(program: &Program, scope: &dyn Scope) -> Result<Value> {
    let fetched: Fetched<'_> = program
        .sources
        .iter()
        .map(|source| match &source.member {
            Some(member) => scope.member(&source.root, member),
            None => scope.root(&source.root),
        })
        .collect();
    let mut machine = Machine {
        program,
        scope,
        fetched: &fetched,
        locals: Vec::new(),
        fuel: limits::EXPRESSION_FUEL,
    };
    let value = machine.eval(&program.root)?;
    to_json(&value)
}

/// One evaluation.
pub(super) struct Machine<'m, 'a> {
    program: &'a Program,
    scope: &'m dyn Scope,
    fetched: &'a Fetched<'a>,
    locals: Vec<Val<'a>>,
    fuel: u64,
}

impl<'a> Machine<'_, 'a> {
    /// Pays for so many elements.
    pub(super) fn charge(&mut self, elements: usize) -> Result<()> {
        self.fuel = self.fuel.checked_sub(elements as u64).ok_or_else(|| {
            EvalError::new(
                "fuel_exhausted",
                format!(
                    "`{}` does more than {} steps: let it work on less",
                    shown(&self.program.source),
                    limits::EXPRESSION_FUEL
                ),
            )
        })?;
        Ok(())
    }

    /// Pays for a text of so many bytes that is about to be made.
    pub(super) fn charge_text(&mut self, bytes: usize) -> Result<()> {
        if bytes > limits::EVALUATION_BYTES {
            return Err(too_large(limits::EVALUATION_BYTES));
        }
        self.charge(bytes / 16 + 1)
    }

    pub(super) fn eval(&mut self, node: &'a Node) -> Result<Val<'a>> {
        self.charge(1)?;
        match &node.kind {
            Kind::Literal(literal) => Ok(literal.value()),
            Kind::Path(path) => self.path(&self.program.paths[*path]),
            Kind::Local(local) => Ok(self.locals[*local].clone()),
            Kind::HasSource(source) => self.has_source(*source),
            Kind::Member(operand, key) => {
                let operand = self.eval(operand)?;
                self.member(node, &operand, key)
            }
            Kind::Has(operand, key) => match self.eval(operand)? {
                Val::Map(map) => Ok(Val::Bool(map.get(key).is_some())),
                _ => Ok(Val::Bool(false)),
            },
            Kind::Index(operand, index) => {
                let operand = self.eval(operand)?;
                let index = self.eval(index)?;
                self.index(node, &operand, &index)
            }
            Kind::List(nodes) => {
                let items: Result<Vec<_>> = nodes.iter().map(|node| self.eval(node)).collect();
                items.map(Val::list)
            }
            Kind::Map(entries) => self.map(node, entries),
            Kind::And(left, right) => self.logic(left, right, false),
            Kind::Or(left, right) => self.logic(left, right, true),
            Kind::Not(inner) => Ok(Val::Bool(!self.condition(inner)?)),
            Kind::Negate(inner) => {
                let value = self.eval(inner)?;
                arithmetic::negate(&value).map_err(|error| at(node, error))
            }
            Kind::If(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                if self.condition(condition)? { self.eval(then) } else { self.eval(otherwise) }
            }
            Kind::Binary(operator, both) => {
                let [left, right] = both.as_ref();
                let left = self.eval(left)?;
                let right = self.eval(right)?;
                arithmetic::binary(self, *operator, &left, &right).map_err(|error| at(node, error))
            }
            Kind::Call(function, args) => {
                let args: Result<Vec<_>> = args.iter().map(|arg| self.eval(arg)).collect();
                function::call(self, *function, &args?).map_err(|error| at(node, error))
            }
            Kind::Each(each) => self.each(node, each),
        }
    }

    fn path(&self, path: &'a Path) -> Result<Val<'a>> {
        let source = &self.program.sources[path.source];
        let Some(start) = &self.fetched[path.source] else {
            return Err(self.missing_source(path.source, &path.text));
        };
        match walk(start, &path.steps) {
            Some(value) => Ok(Val::from_json(value)),
            None => {
                let known =
                    (0..path.steps.len()).rev().find_map(|count| walk(start, &path.steps[..count]));
                let kind = known.map_or("nothing", super::value::kind_of);
                Err(EvalError::new(
                    "no_such_member",
                    format!(
                        "`{}` doesn't exist: the part of it that does, under `{}`, is {kind}; \
                         test with has() where it may be missing",
                        path.text, source.root
                    ),
                ))
            }
        }
    }

    fn missing_source(&self, source: usize, text: &str) -> EvalError {
        let root = &self.program.sources[source].root;
        if self.scope.declares(root) {
            EvalError::new(
                "no_such_member",
                format!("`{text}` doesn't exist; test with has() where it may be missing"),
            )
        } else {
            EvalError::new("undeclared_name", format!("`{root}` isn't in scope here"))
        }
    }

    fn has_source(&self, source: usize) -> Result<Val<'a>> {
        if self.fetched[source].is_some() {
            return Ok(Val::Bool(true));
        }
        let error = self.missing_source(source, "");
        if error.code == "undeclared_name" { Err(error) } else { Ok(Val::Bool(false)) }
    }

    fn member(&self, node: &Node, operand: &Val<'a>, key: &str) -> Result<Val<'a>> {
        let found = match operand {
            Val::Map(map) => map.get(key),
            _ => None,
        };
        found.ok_or_else(|| {
            let message = format!("{} without a member `{key}`", operand.type_name());
            at(node, EvalError::new("no_such_member", message))
        })
    }

    fn index(&self, node: &Node, operand: &Val<'a>, index: &Val<'a>) -> Result<Val<'a>> {
        match (operand, index) {
            (Val::Map(_), Val::Text(key)) => self.member(node, operand, key.as_str()),
            (Val::List(list), Val::Int(index)) => {
                let found = usize::try_from(*index).ok().and_then(|index| list.get(index));
                found.ok_or_else(|| {
                    let message = format!("a list of {} has no element {index}", list.len());
                    at(node, EvalError::new("no_such_member", message))
                })
            }
            _ => {
                let message =
                    format!("`[]` can't take {} and {}", operand.type_name(), index.type_name());
                Err(at(node, EvalError::new("type_mismatch", message)))
            }
        }
    }

    fn map(&mut self, node: &Node, entries: &'a [(Node, Node)]) -> Result<Val<'a>> {
        let mut map: BTreeMap<Rc<str>, Val<'a>> = BTreeMap::new();
        for (key, value) in entries {
            let key = match self.eval(key)? {
                Val::Text(Text::Made(key)) => key,
                Val::Text(Text::Borrowed(key)) => {
                    self.charge_text(key.len())?;
                    Rc::from(key)
                }
                other => {
                    let message = format!("a map's key must be a text, not {}", other.type_name());
                    return Err(at(node, EvalError::new("type_mismatch", message)));
                }
            };
            let value = self.eval(value)?;
            if map.contains_key(&key) {
                let message = format!("a map with the key {key:?} twice");
                return Err(at(node, EvalError::new("invalid_argument", message)));
            }
            map.insert(key, value);
        }
        Ok(Val::Map(Object::Made(Rc::new(map))))
    }

    fn condition(&mut self, node: &'a Node) -> Result<bool> {
        match self.eval(node)? {
            Val::Bool(value) => Ok(value),
            other => {
                let message = format!("true or false is needed, not {}", other.type_name());
                Err(at(node, EvalError::new("type_mismatch", message)))
            }
        }
    }

    /// `&&` and `||` as CEL has them: either side may decide, even where the other one fails.
    fn logic(&mut self, left: &'a Node, right: &'a Node, decisive: bool) -> Result<Val<'a>> {
        let first = self.condition(left);
        match &first {
            Ok(value) if *value == decisive => return first.map(Val::Bool),
            Err(error) if error.is_limit() => return first.map(Val::Bool),
            _ => {}
        }
        let second = self.condition(right)?;
        if second == decisive { Ok(Val::Bool(decisive)) } else { first.map(Val::Bool) }
    }

    fn each(&mut self, node: &'a Node, each: &'a Each) -> Result<Val<'a>> {
        let range = match self.eval(&each.range)? {
            Val::List(list) => list,
            Val::Map(map) => {
                self.charge(map.len())?;
                List::Made(Rc::new(map.keys().into_iter().map(Val::Text).collect()))
            }
            other => {
                let message = format!("a list or a map is needed, not {}", other.type_name());
                return Err(at(node, EvalError::new("type_mismatch", message)));
            }
        };
        match each.fold {
            Fold::All | Fold::Exists => self.quantify(each, &range),
            Fold::Max | Fold::Min => self.extreme(node, each, &range),
            Fold::SortBy => self.sort_by(node, each, &range),
            Fold::Map | Fold::Filter | Fold::ExistsOne | Fold::Sum => {
                self.collect(node, each, &range)
            }
        }
    }

    fn bound<T>(&mut self, item: Val<'a>, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.charge(1)?;
        self.locals.push(item);
        let value = run(self);
        self.locals.pop();
        value
    }

    fn collect(&mut self, node: &Node, each: &'a Each, range: &List<'a>) -> Result<Val<'a>> {
        let mut made = Vec::new();
        let mut matches: usize = 0;
        let mut sum = Val::Int(0);
        for item in range.iter() {
            match each.fold {
                Fold::Map => {
                    let value = self.bound(item, |machine| {
                        if let Some(filter) = &each.filter
                            && !machine.condition(filter)?
                        {
                            return Ok(None);
                        }
                        machine.eval(&each.body).map(Some)
                    })?;
                    made.extend(value);
                }
                Fold::Sum => {
                    let value = self.bound(item, |machine| machine.eval(&each.body))?;
                    sum = function::plus(self, &sum, &value).map_err(|error| at(node, error))?;
                }
                _ => {
                    let kept = item.clone();
                    if self.bound(item, |machine| machine.condition(&each.body))? {
                        matches += 1;
                        made.push(kept);
                    }
                }
            }
        }
        Ok(match each.fold {
            Fold::ExistsOne => Val::Bool(matches == 1),
            Fold::Sum => sum,
            _ => Val::list(made),
        })
    }

    fn quantify(&mut self, each: &'a Each, range: &List<'a>) -> Result<Val<'a>> {
        let decisive = each.fold == Fold::Exists;
        let mut failed = None;
        for item in range.iter() {
            match self.bound(item, |machine| machine.condition(&each.body)) {
                Ok(value) if value == decisive => return Ok(Val::Bool(decisive)),
                Err(error) if error.is_limit() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
                Ok(_) => {}
            }
        }
        failed.map_or(Ok(Val::Bool(!decisive)), Err)
    }

    fn extreme(&mut self, node: &Node, each: &'a Each, range: &List<'a>) -> Result<Val<'a>> {
        let wanted = if each.fold == Fold::Max { Ordering::Greater } else { Ordering::Less };
        let mut best: Option<(Val<'a>, Val<'a>)> = None;
        for item in range.iter() {
            let value = self.bound(item.clone(), |machine| machine.eval(&each.body))?;
            let better = match &best {
                Some((_, so_far)) => self.order(node, &value, so_far)? == wanted,
                // Compared with itself, so that a list of one is checked like a longer one.
                None => self.order(node, &value, &value).map(|_| true)?,
            };
            if better {
                best = Some((item, value));
            }
        }
        best.map(|(item, _)| item)
            .ok_or_else(|| at(node, EvalError::new("empty_list", "an empty list has no extreme")))
    }

    fn sort_by(&mut self, node: &Node, each: &'a Each, range: &List<'a>) -> Result<Val<'a>> {
        let mut keyed = Vec::with_capacity(range.len());
        for item in range.iter() {
            let key = self.bound(item.clone(), |machine| machine.eval(&each.body))?;
            keyed.push((key, item));
        }
        function::sort(self, keyed).map(Val::list).map_err(|error| at(node, error))
    }

    fn order(&mut self, node: &Node, left: &Val<'a>, right: &Val<'a>) -> Result<Ordering> {
        function::order(self, left, right).map_err(|error| at(node, error))
    }
}

/// The error with the column at which it arose.
fn at(node: &Node, error: EvalError) -> EvalError {
    if node.column == 0 || error.is_limit() {
        return error;
    }
    EvalError { message: format!("{} (column {})", error.message, node.column), ..error }
}

fn shown(source: &str) -> String {
    source.chars().take(80).collect()
}
