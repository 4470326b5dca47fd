//! Operators: arithmetic that can't overflow silently, equality and order across number types.

use std::cmp::Ordering;
use std::rc::Rc;

use chrono::TimeDelta;

use super::EvalError;
use super::eval::Machine;
use super::node::Operator;
use super::value::{List, Object, Val};

/// How deep equality looks; nothing that JSON can bring in goes deeper.
const EQUALITY_DEPTH: usize = 256;

type Result<T> = std::result::Result<T, EvalError>;

pub(super) fn binary<'a>(
    machine: &mut Machine<'_, 'a>,
    operator: Operator,
    left: &Val<'a>,
    right: &Val<'a>,
) -> Result<Val<'a>> {
    match operator {
        Operator::Equal => equal(machine, left, right, EQUALITY_DEPTH).map(Val::Bool),
        Operator::NotEqual => {
            equal(machine, left, right, EQUALITY_DEPTH).map(|equal| Val::Bool(!equal))
        }
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let order = machine.compare(operator.sign(), left, right)?;
            Ok(Val::Bool(match operator {
                Operator::Less => order == Some(Ordering::Less),
                Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
                Operator::Greater => order == Some(Ordering::Greater),
                _ => order.is_some_and(Ordering::is_ge),
            }))
        }
        Operator::In => contains(machine, left, right).map(Val::Bool),
        Operator::Add => add(machine, left, right),
        _ => number(operator, left, right),
    }
}

fn mismatch(sign: &str, left: &Val<'_>, right: &Val<'_>) -> EvalError {
    EvalError::new(
        "type_mismatch",
        format!("`{sign}` can't take {} and {}", left.type_name(), right.type_name()),
    )
}

fn overflow(operator: Operator) -> EvalError {
    EvalError::new("overflow", format!("`{}` leaves the range of its numbers", operator.sign()))
}

pub(super) fn add<'a>(
    machine: &mut Machine<'_, 'a>,
    left: &Val<'a>,
    right: &Val<'a>,
) -> Result<Val<'a>> {
    match (left, right) {
        (Val::Text(left), Val::Text(right)) => {
            let (left, right) = (left.as_str(), right.as_str());
            machine.charge_text(left.len() + right.len())?;
            Ok(Val::text([left, right].concat()))
        }
        (Val::List(left), Val::List(right)) => {
            machine.charge(left.len() + right.len())?;
            Ok(Val::list(left.iter().chain(right.iter()).collect()))
        }
        (Val::Time(time), Val::Span(span)) | (Val::Span(span), Val::Time(time)) => {
            time.checked_add_signed(*span).map(Val::Time).ok_or_else(|| overflow(Operator::Add))
        }
        (Val::Span(left), Val::Span(right)) => {
            left.checked_add(right).map(Val::Span).ok_or_else(|| overflow(Operator::Add))
        }
        _ => number(Operator::Add, left, right),
    }
}

fn number<'a>(operator: Operator, left: &Val<'a>, right: &Val<'a>) -> Result<Val<'a>> {
    match (left, right) {
        (Val::Int(left), Val::Int(right)) => int(operator, *left, *right).map(Val::Int),
        (Val::UInt(left), Val::UInt(right)) => uint(operator, *left, *right).map(Val::UInt),
        (Val::Time(left), Val::Time(right)) if operator == Operator::Subtract => {
            Ok(Val::Span(left.signed_duration_since(right)))
        }
        (Val::Time(time), Val::Span(span)) if operator == Operator::Subtract => {
            time.checked_sub_signed(*span).map(Val::Time).ok_or_else(|| overflow(operator))
        }
        (Val::Span(left), Val::Span(right)) if operator == Operator::Subtract => {
            left.checked_sub(right).map(Val::Span).ok_or_else(|| overflow(operator))
        }
        _ => match (as_double(left), as_double(right)) {
            (Some(left), Some(right)) if operator != Operator::Modulo => {
                Ok(Val::Double(double(operator, left, right)))
            }
            _ => Err(mismatch(operator.sign(), left, right)),
        },
    }
}

fn int(operator: Operator, left: i64, right: i64) -> Result<i64> {
    if right == 0 && matches!(operator, Operator::Divide | Operator::Modulo) {
        return Err(EvalError::new("division_by_zero", format!("`{left} / 0` has no value")));
    }
    let value = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    value.ok_or_else(|| overflow(operator))
}

fn uint(operator: Operator, left: u64, right: u64) -> Result<u64> {
    if right == 0 && matches!(operator, Operator::Divide | Operator::Modulo) {
        return Err(EvalError::new("division_by_zero", format!("`{left} / 0` has no value")));
    }
    let value = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => left.checked_div(right),
        _ => left.checked_rem(right),
    };
    value.ok_or_else(|| overflow(operator))
}

fn double(operator: Operator, left: f64, right: f64) -> f64 {
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        _ => left / right,
    }
}

pub(super) fn as_double(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Int(value) => Some(*value as f64),
        Val::UInt(value) => Some(*value as f64),
        Val::Double(value) => Some(*value),
        _ => None,
    }
}

pub(super) fn negate<'a>(value: &Val<'a>) -> Result<Val<'a>> {
    match value {
        Val::Int(value) => {
            value.checked_neg().map(Val::Int).ok_or_else(|| overflow(Operator::Subtract))
        }
        Val::Double(value) => Ok(Val::Double(-value)),
        Val::Span(span) => TimeDelta::zero()
            .checked_sub(span)
            .map(Val::Span)
            .ok_or_else(|| overflow(Operator::Subtract)),
        other => {
            Err(EvalError::new("type_mismatch", format!("`-` can't take {}", other.type_name())))
        }
    }
}

/// The order of two numbers, exact even where an int has no double.
fn number_order(left: &Val<'_>, right: &Val<'_>) -> Option<Option<Ordering>> {
    let order = match (left, right) {
        (Val::Double(left), Val::Double(right)) => left.partial_cmp(right),
        (Val::Double(left), right) => whole(right).map(|right| compare_double(*left, right))?,
        (left, Val::Double(right)) => {
            whole(left).map(|left| compare_double(*right, left).map(Ordering::reverse))?
        }
        (left, right) => Some(whole(left)?.cmp(&whole(right)?)),
    };
    Some(order)
}

fn whole(value: &Val<'_>) -> Option<i128> {
    match value {
        Val::Int(value) => Some(i128::from(*value)),
        Val::UInt(value) => Some(i128::from(*value)),
        _ => None,
    }
}

fn compare_double(left: f64, right: i128) -> Option<Ordering> {
    if left.is_nan() {
        return None;
    }
    // The cast saturates, far outside what 64-bit integers reach.
    let floor = left.floor();
    Some((floor as i128).cmp(&right).then(if left > floor {
        Ordering::Greater
    } else {
        Ordering::Equal
    }))
}

impl Machine<'_, '_> {
    /// The order of two values of one kind; `None` only for NaN.
    pub(super) fn compare(
        &mut self,
        sign: &str,
        left: &Val<'_>,
        right: &Val<'_>,
    ) -> Result<Option<Ordering>> {
        if let Some(order) = number_order(left, right) {
            return Ok(order);
        }
        match (left, right) {
            (Val::Text(left), Val::Text(right)) => {
                let (left, right) = (left.as_str(), right.as_str());
                self.charge(left.len().min(right.len()) / 16)?;
                Ok(Some(left.cmp(right)))
            }
            (Val::Bool(left), Val::Bool(right)) => Ok(Some(left.cmp(right))),
            (Val::Time(left), Val::Time(right)) => Ok(Some(left.cmp(right))),
            (Val::Span(left), Val::Span(right)) => Ok(Some(left.cmp(right))),
            _ => Err(mismatch(sign, left, right)),
        }
    }
}

/// Whether two values are equal: numbers by value, whatever their types; other types differ.
pub(super) fn equal(
    machine: &mut Machine<'_, '_>,
    left: &Val<'_>,
    right: &Val<'_>,
    depth: usize,
) -> Result<bool> {
    machine.charge(1)?;
    let Some(next) = depth.checked_sub(1) else {
        return Err(EvalError::new("too_deep", "the values nest too deep to be compared"));
    };
    if let Some(order) = number_order(left, right) {
        return Ok(order == Some(Ordering::Equal));
    }
    match (left, right) {
        (Val::Null, Val::Null) => Ok(true),
        (Val::List(left), Val::List(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right.iter()) {
                if !equal(machine, &left, &right, next)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Val::Map(left), Val::Map(right)) => equal_maps(machine, left, right, next),
        (Val::Text(_), Val::Text(_))
        | (Val::Bool(_), Val::Bool(_))
        | (Val::Time(_), Val::Time(_))
        | (Val::Span(_), Val::Span(_)) => {
            machine.compare("==", left, right).map(|order| order == Some(Ordering::Equal))
        }
        _ => Ok(false),
    }
}

fn equal_maps(
    machine: &mut Machine<'_, '_>,
    left: &Object<'_>,
    right: &Object<'_>,
    depth: usize,
) -> Result<bool> {
    if left.len() != right.len() {
        return Ok(false);
    }
    machine.charge(left.len())?;
    for key in left.keys() {
        let (Some(left), Some(right)) = (left.get(key.as_str()), right.get(key.as_str())) else {
            return Ok(false);
        };
        if !equal(machine, &left, &right, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains(machine: &mut Machine<'_, '_>, item: &Val<'_>, within: &Val<'_>) -> Result<bool> {
    match within {
        Val::List(list) => {
            for element in list.iter() {
                if equal(machine, item, &element, EQUALITY_DEPTH)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Val::Map(map) => match item {
            Val::Text(key) => Ok(map.get(key.as_str()).is_some()),
            _ => Ok(false),
        },
        _ => Err(mismatch("in", item, within)),
    }
}

/// The list without later elements that equal an earlier one.
pub(super) fn distinct<'a>(machine: &mut Machine<'_, 'a>, list: &List<'a>) -> Result<Val<'a>> {
    let mut kept: Vec<Val<'a>> = Vec::new();
    'items: for item in list.iter() {
        for earlier in &kept {
            if equal(machine, earlier, &item, EQUALITY_DEPTH)? {
                continue 'items;
            }
        }
        machine.charge(1)?;
        kept.push(item);
    }
    Ok(Val::List(List::Made(Rc::new(kept))))
}
