//! What a platform under test is made of.

use std::path::{Path, PathBuf};

use domain::audit::AuditKey;

/// Where it keeps its data, and how many processes it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// One process, SQLite files.
    Embedded,
    /// One process, a PostgreSQL database.
    Database,
    /// A process for each role, a PostgreSQL database, NATS.
    Distributed,
}

/// A setting with its numbers.
#[derive(Debug, Clone)]
pub struct Shape {
    pub(crate) setting: Setting,
    /// Processes of each kind, in the order in which an operator stops them: first who takes
    /// requests, last who keeps the data.
    pub(crate) processes: Vec<(&'static str, usize)>,
    pub(crate) own_postgres: bool,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    /// Where the journal's files are, if not in a temporary folder of the platform's own.
    pub(crate) data_in: Option<PathBuf>,
}

impl From<Setting> for Shape {
    /// The smallest one, but for a second coordinator where there are several processes: half of
    /// the runs then belong to somebody else than who is asked.
    fn from(setting: Setting) -> Self {
        let processes = match setting {
            Setting::Embedded | Setting::Database => vec![("platform", 1)],
            Setting::Distributed => {
                vec![("gateway", 1), ("executor", 1), ("coordinator", 2), ("projector", 1)]
            }
        };
        let (arguments, variables) = (Vec::new(), Vec::new());
        Self { setting, processes, own_postgres: false, arguments, variables, data_in: None }
    }
}

impl Shape {
    /// What `make up` starts: two of everything but the projector.
    pub fn whole() -> Self {
        let processes = vec![("gateway", 2), ("executor", 2), ("coordinator", 2), ("projector", 1)];
        Self { processes, ..Self::from(Setting::Distributed) }
    }

    /// With so many processes of a kind (`gateway`, `coordinator`, `projector`, `executor`).
    pub fn with_processes(mut self, kind: &str, count: usize) -> Self {
        let of_kind = self.processes.iter_mut().filter(|(name, _)| *name == kind);
        of_kind.for_each(|(_, number)| *number = count);
        self
    }

    /// With a PostgreSQL server of its own, which can be stopped.
    pub fn with_own_postgres(self) -> Self {
        Self { own_postgres: true, ..self }
    }

    /// With its journal in a folder: an embedded one's files, or an own PostgreSQL server's.
    pub fn with_data_in(self, folder: &Path) -> Self {
        Self { data_in: Some(folder.to_owned()), ..self }
    }

    /// With further arguments for each process.
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With an environment variable for each process.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an audit key from a folder, in which `key.pem` is made and beside it `key.pub`.
    ///
    /// # Panics
    /// Where the folder can't be written to.
    pub fn with_audit_key(self, folder: &Path) -> Self {
        let key = AuditKey::from_seed(&[7; 32]);
        let private = folder.join("key.pem");
        std::fs::write(&private, key.to_pem()).expect("the key can be written");
        std::fs::write(folder.join("key.pub"), key.public().to_pem()).expect("and its public half");
        self.with_variable("WONDER_AUDIT_KEY", private.to_str().expect("a path in unicode"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let named = self.processes.iter().flat_map(|(kind, count)| match *kind {
            "platform" => vec!["platform".to_owned()],
            kind => (1..=*count).map(|number| format!("{kind}-{number}")).collect(),
        });
        named.collect()
    }
}

/// The role that a process has, by its name; none where it has all.
pub(crate) fn role(name: &str) -> Option<&'static str> {
    match name.split('-').next() {
        Some("gateway") => Some("gateway"),
        Some("executor") => Some("executor"),
        Some("coordinator") => Some("commands"),
        Some("projector") => Some("projections"),
        _ => None,
    }
}

/// Makes tests of an `async fn(Setting)`: one for each way to run the platform.
#[macro_export]
macro_rules! in_both_settings {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn embedded() {
                super::$name($crate::Setting::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn distributed() {
                super::$name($crate::Setting::Distributed).await;
            }
        }
    )+};
}

/// The same for what only several processes can show.
#[macro_export]
macro_rules! in_distributed {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn distributed() {
                super::$name($crate::Setting::Distributed).await;
            }
        }
    )+};
}
