//! The conditions of a list, with their parameters. Only those that narrow stand there, so that the
//! index of one of them is used.

use super::sql::{Bind, Statement, sql};
use crate::cursor::Asked;

/// Conditions that all must hold.
#[derive(Default)]
pub(crate) struct Conditions {
    text: String,
    binds: Vec<Bind>,
}

impl Conditions {
    /// Adds a condition where there is a value for it, which is written `$_`.
    pub(crate) fn and(&mut self, condition: &str, value: Option<impl Into<Bind>>) {
        let Some(value) = value else { return };
        self.binds.push(value.into());
        let place = format!("${}", self.binds.len());
        self.text.push_str(&format!(" and {}", condition.replace("$_", &place)));
    }

    /// The rows of a page of a list by time, newest first: `select` up to its conditions, of a table
    /// whose time and id have this prefix.
    pub(crate) fn page(mut self, select: &str, prefix: &str, asked: &Asked) -> Statement {
        let (micros, id) = (format!("{prefix}at_micros"), format!("{prefix}id"));
        if let (Some(after), Some(after_id)) = (asked.micros(), asked.id()) {
            self.and(&format!("{micros} <= $_"), Some(after));
            let place = self.binds.len();
            self.and(&format!("({micros}, {id}) < (${place}, $_)"), Some(after_id));
        }
        let limit = self.binds.len() + 1;
        let text = format!(
            "{select} where true{} order by {micros} desc, {id} desc limit ${limit}",
            self.text
        );
        let binds = self.binds.into_iter().chain([asked.rows().into()]);
        binds.fold(sql(text), |query, bind| query.bind(bind))
    }
}
