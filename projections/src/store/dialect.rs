//! What the two databases say differently. All other SQL is one text for both.

use std::time::Duration;

/// Which database the read tables stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The elements of a JSON array that stands in a parameter, as rows with the one column
    /// `value`; `value ->> 'key'` and `value ->> 0` give texts out of it on both.
    pub(crate) fn each(self, parameter: &str) -> String {
        match self {
            // Each element is made a text once: a fence keeps `json_each` from making it again for
            // each member that is taken out.
            Self::Sqlite => format!(
                "(with each as materialized (select value from json_each({parameter})) \
                 select value from each)"
            ),
            // The binary form is read once, whatever the number of members that are taken out.
            Self::Postgres => format!("jsonb_array_elements(cast({parameter} as jsonb))"),
        }
    }

    /// At the end of a `select`: nobody else changes the rows before the transaction ends. A file
    /// has one writer anyway.
    pub(crate) const fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " for update",
        }
    }

    /// A statement that empties a table that nobody reads.
    pub(crate) fn empty(self, table: &str) -> String {
        match self {
            Self::Sqlite => format!("delete from {table}"),
            Self::Postgres => format!("truncate {table}"),
        }
    }

    /// The schemas of the live tables and of those that a rebuild makes.
    pub(crate) const fn live_and_next(self) -> (&'static str, &'static str) {
        match self {
            Self::Sqlite => ("main", "next"),
            Self::Postgres => ("wonder", "wonder_next"),
        }
    }

    /// How long a checkpoint that has moved over events without concern may stay unstored. Who
    /// stands by knows only what is stored; with a file nobody does.
    pub(crate) const fn keep_within(self) -> Option<Duration> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some(Duration::from_millis(25)),
        }
    }
}
