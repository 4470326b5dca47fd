//! The functions of expressions: which there are, and what those on lists and values do.

use std::cmp::Ordering;
use std::ops::RangeInclusive;
use std::rc::Rc;

use serde_json::Value;

use super::EvalError;
use super::arithmetic;
use super::eval::Machine;
use super::value::{List, Object, Text, Val, fits, to_json};
use super::{texts, times};
use crate::limits;

type Result<T> = std::result::Result<T, EvalError>;

/// The longest list that `range` makes.
const RANGE: i64 = 10_000;

macro_rules! functions {
    ($($name:literal $variant:ident $arity:expr;)*) => {
        /// A function. The value it is called on counts as its first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function { $($variant,)* }

        impl Function {
            /// The function of a name, and how many values it takes.
            pub(super) fn named(name: &str) -> Option<(Self, RangeInclusive<usize>)> {
                match name {
                    "lowerAscii" => Some((Self::Lower, 1..=1)),
                    "upperAscii" => Some((Self::Upper, 1..=1)),
                    $($name => Some((Self::$variant, $arity)),)*
                    _ => None,
                }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        const NAMES: &[&str] = &[$($name,)* "has", "map", "filter", "all", "exists", "exists_one", "sort_by"];
    };
}

functions! {
    "size" Size 1..=1;
    "type" Type 1..=1;
    "dyn" Dyn 1..=1;
    "int" Int 1..=1;
    "uint" UInt 1..=1;
    "double" Double 1..=1;
    "string" String 1..=1;
    "bool" Bool 1..=1;
    "timestamp" Timestamp 1..=1;
    "duration" Duration 1..=1;
    "contains" Contains 2..=2;
    "startsWith" StartsWith 2..=2;
    "endsWith" EndsWith 2..=2;
    "matches" Matches 2..=2;
    "indexOf" IndexOf 2..=2;
    "split" Split 2..=3;
    "join" Join 1..=2;
    "trim" Trim 1..=1;
    "lower" Lower 1..=1;
    "upper" Upper 1..=1;
    "replace" Replace 3..=3;
    "substring" Substring 2..=3;
    "sum" Sum 1..=1;
    "max" Max 1..=1;
    "min" Min 1..=1;
    "sort" Sort 1..=1;
    "distinct" Distinct 1..=1;
    "reverse" Reverse 1..=1;
    "slice" Slice 2..=3;
    "first" First 1..=1;
    "last" Last 1..=1;
    "flatten" Flatten 1..=1;
    "keys" Keys 1..=1;
    "values" Values 1..=1;
    "range" Range 1..=1;
    "json" Json 1..=1;
    "parse_json" ParseJson 1..=1;
    "getFullYear" FullYear 1..=1;
    "getMonth" Month 1..=1;
    "getDate" Date 1..=1;
    "getDayOfMonth" DayOfMonth 1..=1;
    "getDayOfWeek" DayOfWeek 1..=1;
    "getDayOfYear" DayOfYear 1..=1;
    "getHours" Hours 1..=1;
    "getMinutes" Minutes 1..=1;
    "getSeconds" Seconds 1..=1;
    "getMilliseconds" Milliseconds 1..=1;
}

/// The function whose name is most like the given one, if any is like it.
pub(super) fn closest(name: &str) -> Option<&'static str> {
    super::super::closest(name, NAMES.iter().copied())
}

pub(super) fn call<'a>(
    machine: &mut Machine<'_, 'a>,
    function: Function,
    args: &[Val<'a>],
) -> Result<Val<'a>> {
    use Function as F;
    match (function, args) {
        (F::Size, [Val::Text(text)]) => {
            machine.charge(text.as_str().len() / 16)?;
            Ok(int(text.as_str().chars().count()))
        }
        (F::Size, [Val::List(list)]) => Ok(int(list.len())),
        (F::Size, [Val::Map(map)]) => Ok(int(map.len())),
        (F::Type, [value]) => Ok(Val::Text(Text::Borrowed(value.type_name()))),
        (F::Dyn, [value]) => Ok(value.clone()),
        (F::Int, [value]) => to_int(value),
        (F::UInt, [value]) => to_uint(value),
        (F::Double, [value]) => to_double(value),
        (F::Bool, [value]) => to_bool(value),
        (F::String, [value]) => texts::of(value).map_or_else(|| Err(wrong(function, args)), Ok),
        (F::Timestamp | F::Duration, [_]) => {
            times::parse(function, &args[0]).unwrap_or_else(|| Err(wrong(function, args)))
        }
        (F::Range, [Val::Int(count)]) if (0..=RANGE).contains(count) => {
            machine.charge(usize::try_from(*count).unwrap_or_default())?;
            Ok(Val::list((0..*count).map(Val::Int).collect()))
        }
        (F::Range, [Val::Int(count)]) => Err(EvalError::new(
            "invalid_argument",
            format!("`range` takes 0 to {RANGE}, not {count}"),
        )),
        (F::Json, [value]) => json_text(machine, value),
        (F::ParseJson, [Val::Text(text)]) => parse_json(machine, text.as_str()),
        (F::Keys, [Val::Map(map)]) => {
            machine.charge(map.len())?;
            Ok(Val::list(map.keys().into_iter().map(Val::Text).collect()))
        }
        (F::Values, [Val::Map(map)]) => {
            machine.charge(map.len())?;
            let keys = map.keys();
            Ok(Val::list(keys.iter().filter_map(|key| map.get(key.as_str())).collect()))
        }
        (F::Join, [Val::List(list), rest @ ..]) => {
            texts::join(machine, list, rest).unwrap_or_else(|| Err(wrong(function, args)))
        }
        (_, [Val::List(list), rest @ ..]) => {
            on_list(machine, function, list, rest).unwrap_or_else(|| Err(wrong(function, args)))
        }
        (_, [Val::Text(text), rest @ ..]) => texts::call(machine, function, text.as_str(), rest)
            .unwrap_or_else(|| Err(wrong(function, args))),
        (_, [value]) => times::part(function, value).unwrap_or_else(|| Err(wrong(function, args))),
        _ => Err(wrong(function, args)),
    }
}

fn wrong(function: Function, args: &[Val<'_>]) -> EvalError {
    let types: Vec<_> = args.iter().map(Val::type_name).collect();
    EvalError::new(
        "type_mismatch",
        format!("`{}` can't take {}", function.name(), types.join(", ")),
    )
}

pub(super) fn int<'a>(count: usize) -> Val<'a> {
    Val::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn on_list<'a>(
    machine: &mut Machine<'_, 'a>,
    function: Function,
    list: &List<'a>,
    rest: &[Val<'a>],
) -> Option<Result<Val<'a>>> {
    Some(match (function, rest) {
        (Function::Sum, []) => list.iter().try_fold(Val::Int(0), |sum, item| {
            machine.charge(1)?;
            plus(machine, &sum, &item)
        }),
        (Function::Max, []) => extreme(machine, list, Ordering::Greater),
        (Function::Min, []) => extreme(machine, list, Ordering::Less),
        (Function::Sort, []) => {
            sort(machine, list.iter().map(|item| (item.clone(), item)).collect()).map(Val::list)
        }
        (Function::Distinct, []) => arithmetic::distinct(machine, list),
        (Function::Reverse, []) => machine.charge(list.len()).map(|()| {
            let mut items: Vec<_> = list.iter().collect();
            items.reverse();
            Val::list(items)
        }),
        (Function::Slice, [Val::Int(from)]) => {
            slice(machine, list, *from, i64::try_from(list.len()).unwrap_or(i64::MAX))
        }
        (Function::Slice, [Val::Int(from), Val::Int(to)]) => slice(machine, list, *from, *to),
        (Function::First, []) => end(list, 0),
        (Function::Last, []) => end(list, list.len().saturating_sub(1)),
        (Function::Flatten, []) => flatten(machine, list),
        (Function::Contains, [item]) => {
            arithmetic::binary(machine, super::node::Operator::In, item, &Val::List(list.clone()))
        }
        _ => return None,
    })
}

/// The first or last item.
fn end<'a>(list: &List<'a>, index: usize) -> Result<Val<'a>> {
    list.get(index).ok_or_else(|| {
        EvalError::new("empty_list", "an empty list has no first and no last item: ask its size")
    })
}

fn slice<'a>(
    machine: &mut Machine<'_, 'a>,
    list: &List<'a>,
    from: i64,
    to: i64,
) -> Result<Val<'a>> {
    let bounds = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let Some((from, to)) = bounds.filter(|(from, to)| from <= to && *to <= list.len()) else {
        return Err(EvalError::new(
            "index_out_of_range",
            format!("a list of {} has no slice from {from} to {to}", list.len()),
        ));
    };
    machine.charge(to - from)?;
    Ok(Val::list((from..to).filter_map(|index| list.get(index)).collect()))
}

fn flatten<'a>(machine: &mut Machine<'_, 'a>, list: &List<'a>) -> Result<Val<'a>> {
    let mut flat = Vec::new();
    for item in list.iter() {
        match item {
            Val::List(inner) => {
                machine.charge(inner.len() + 1)?;
                flat.extend(inner.iter());
            }
            other => {
                machine.charge(1)?;
                flat.push(other);
            }
        }
    }
    Ok(Val::list(flat))
}

/// The sum of two numbers or durations; texts and lists aren't summed.
pub(super) fn plus<'a>(
    machine: &mut Machine<'_, 'a>,
    sum: &Val<'a>,
    value: &Val<'a>,
) -> Result<Val<'a>> {
    match (sum, value) {
        // The empty sum is an int; it takes the kind of the first value.
        (Val::Int(0), Val::UInt(_) | Val::Span(_)) => Ok(value.clone()),
        (_, Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Span(_)) => {
            arithmetic::add(machine, sum, value)
        }
        _ => Err(EvalError::new(
            "type_mismatch",
            format!("`sum` adds numbers, not {}", value.type_name()),
        )),
    }
}

/// The order of two values, for `max`, `min` and sorting: NaN has none.
pub(super) fn order(
    machine: &mut Machine<'_, '_>,
    left: &Val<'_>,
    right: &Val<'_>,
) -> Result<Ordering> {
    machine
        .compare("<", left, right)?
        .ok_or_else(|| EvalError::new("not_a_number", "NaN has no order"))
}

fn extreme<'a>(
    machine: &mut Machine<'_, 'a>,
    list: &List<'a>,
    wanted: Ordering,
) -> Result<Val<'a>> {
    let mut items = list.iter();
    let mut best =
        items.next().ok_or_else(|| EvalError::new("empty_list", "an empty list has no extreme"))?;
    order(machine, &best, &best)?;
    for item in items {
        machine.charge(1)?;
        if order(machine, &item, &best)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

/// The values in the order of their keys; equal keys keep their order.
pub(super) fn sort<'a>(
    machine: &mut Machine<'_, 'a>,
    mut keyed: Vec<(Val<'a>, Val<'a>)>,
) -> Result<Vec<Val<'a>>> {
    let rounds = keyed.len().checked_ilog2().unwrap_or(0) as usize + 1;
    if let Some((first, _)) = keyed.first().cloned() {
        for (key, _) in &keyed {
            let bytes = if let Val::Text(text) = key { text.as_str().len() } else { 0 };
            machine.charge((bytes / 16 + 1).saturating_mul(rounds))?;
            order(machine, key, &first)?;
        }
    }
    let mut failed = None;
    let fuel_is_paid = machine;
    keyed.sort_by(|(left, _), (right, _)| match order(fuel_is_paid, left, right) {
        Ok(order) => order,
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    failed.map_or_else(|| Ok(keyed.into_iter().map(|(_, value)| value).collect()), Err)
}

fn json_text<'a>(machine: &mut Machine<'_, 'a>, value: &Val<'a>) -> Result<Val<'a>> {
    let json = to_json(value)?;
    let text = json.to_string();
    machine.charge_text(text.len())?;
    Ok(Val::text(text))
}

fn parse_json<'a>(machine: &mut Machine<'_, 'a>, text: &str) -> Result<Val<'a>> {
    // A value of two bytes of text may take a hundred in memory, so that bytes are paid for.
    machine.charge(text.len() / 2 + 1)?;
    let value: Value = serde_json::from_str(text).map_err(|error| {
        EvalError::new("invalid_argument", format!("`parse_json` was given no JSON: {error}"))
    })?;
    fits(&value, limits::EVALUATION_BYTES, limits::JSON_DEPTH)?;
    Ok(owned(value))
}

fn owned<'a>(value: Value) -> Val<'a> {
    match value {
        Value::Null => Val::Null,
        Value::Bool(value) => Val::Bool(value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Val::Int(int),
            (None, Some(uint)) => Val::UInt(uint),
            (None, None) => Val::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Val::text(text),
        Value::Array(list) => Val::list(list.into_iter().map(owned).collect()),
        Value::Object(map) => Val::Map(Object::Made(Rc::new(
            map.into_iter().map(|(key, value)| (Rc::from(key), owned(value))).collect(),
        ))),
    }
}

fn unreadable(kind: &str, text: &str) -> EvalError {
    let text: String = text.chars().take(40).collect();
    EvalError::new("invalid_argument", format!("{text:?} is no {kind}"))
}

fn out_of_range(kind: &str) -> EvalError {
    EvalError::new("overflow", format!("the number is outside the range of {kind}"))
}

fn no_conversion(value: &Val<'_>, kind: &str) -> EvalError {
    EvalError::new("type_mismatch", format!("{} can't become {kind}", value.type_name()))
}

fn to_int<'a>(value: &Val<'a>) -> Result<Val<'a>> {
    let int = match value {
        Val::Int(int) => *int,
        Val::UInt(uint) => i64::try_from(*uint).map_err(|_| out_of_range("int"))?,
        // Both bounds are exact doubles; what lies between them truncates into an i64.
        Val::Double(double) if *double >= -(2f64.powi(63)) && *double < 2f64.powi(63) => {
            *double as i64
        }
        Val::Double(_) => return Err(out_of_range("int")),
        Val::Text(text) => {
            text.as_str().parse().map_err(|_| unreadable("whole number", text.as_str()))?
        }
        Val::Time(time) => time.timestamp(),
        other => return Err(no_conversion(other, "an int")),
    };
    Ok(Val::Int(int))
}

fn to_uint<'a>(value: &Val<'a>) -> Result<Val<'a>> {
    let uint = match value {
        Val::UInt(uint) => *uint,
        Val::Int(int) => u64::try_from(*int).map_err(|_| out_of_range("uint"))?,
        Val::Double(double) if *double >= 0.0 && *double < 2f64.powi(64) => *double as u64,
        Val::Double(_) => return Err(out_of_range("uint")),
        Val::Text(text) => {
            text.as_str().parse().map_err(|_| unreadable("whole number", text.as_str()))?
        }
        other => return Err(no_conversion(other, "a uint")),
    };
    Ok(Val::UInt(uint))
}

fn to_double<'a>(value: &Val<'a>) -> Result<Val<'a>> {
    if let Some(double) = arithmetic::as_double(value) {
        return Ok(Val::Double(double));
    }
    match value {
        Val::Text(text) => {
            text.as_str().parse().map(Val::Double).map_err(|_| unreadable("number", text.as_str()))
        }
        other => Err(no_conversion(other, "a double")),
    }
}

fn to_bool<'a>(value: &Val<'a>) -> Result<Val<'a>> {
    match value {
        Val::Bool(value) => Ok(Val::Bool(*value)),
        Val::Text(text) => match text.as_str() {
            "true" => Ok(Val::Bool(true)),
            "false" => Ok(Val::Bool(false)),
            other => Err(unreadable("bool", other)),
        },
        other => Err(no_conversion(other, "a bool")),
    }
}
