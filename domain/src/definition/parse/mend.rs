//! Which problems of a mended document come from mending it, and not from its author.

use crate::definition::{Problem, ProblemCode};

/// Whether a problem is, or may be, only there because of what was changed at these places.
pub(super) fn causes(mended: &[String], problem: &Problem) -> bool {
    mended.iter().any(|place| is_cause(place, problem))
}

fn is_cause(place: &str, problem: &Problem) -> bool {
    let at = problem.pointer.as_str();
    if is_within(at, place) {
        return true;
    }
    let of_transition = place.strip_prefix("/transitions");
    let member = of_transition.and_then(|rest| rest.split('/').nth(2));
    match problem.code {
        // "There is nothing", where something that couldn't be read was.
        ProblemCode::MissingKey => is_within(place, at),
        ProblemCode::UnreachableNode => {
            place == "/start"
                || of_transition.is_some() && matches!(member, None | Some("from" | "to"))
        }
        ProblemCode::UnboundedLoop => {
            of_transition.is_some() && matches!(member, None | Some("from" | "to"))
        }
        ProblemCode::MissingJoin | ProblemCode::UnknownGroup | ProblemCode::JoinDisagreement => {
            of_transition.is_some() && matches!(member, None | Some("group" | "join" | "to"))
        }
        ProblemCode::UndeclaredName => {
            let names = |key: &str| place.strip_suffix(key).is_some_and(|of| is_within(at, of));
            names("/input")
                || names("/on")
                || of_transition.is_some() && matches!(member, None | Some("as"))
        }
        // What excludes or needs another key of the same place.
        ProblemCode::InvalidValue => {
            let parent = |pointer: &str| pointer.rfind('/').map(|end| pointer[..end].to_owned());
            of_transition.is_some() && parent(at) == parent(place)
        }
        _ => false,
    }
}

/// Whether a pointer is a place or leads below it.
fn is_within(pointer: &str, place: &str) -> bool {
    pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
