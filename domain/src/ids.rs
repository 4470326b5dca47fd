//! Ids: a readable prefix and 128 bits in lower-case base32, parsed once at the edge.
//!
//! The alphabet is base32hex (`0-9a-v`), so the text of time-ordered ids sorts as they do.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text isn't an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix}_ and 26 characters of 0-9a-v")]
pub struct InvalidId {
    /// The prefix that was wanted, without the underscore.
    pub prefix: &'static str,
    /// What was given, cut at 80 characters.
    pub text: String,
}

fn parse(prefix: &'static str, text: &str) -> Result<Uuid, InvalidId> {
    let invalid = || InvalidId { prefix, text: text.chars().take(80).collect() };
    let body = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .filter(|body| body.len() == 26)
        .ok_or_else(invalid)?;
    let bytes = BASE32_DNSSEC.decode(body.as_bytes()).map_err(|_| invalid())?;
    if BASE32_DNSSEC.encode(&bytes) != body {
        return Err(invalid());
    }
    Uuid::from_slice(&bytes).map_err(|_| invalid())
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The prefix of this kind of id, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id of 128 given bits (a UUIDv7 for new things).
            pub const fn new(bits: Uuid) -> Self {
                Self(bits)
            }

            /// Derives the id of a named thing from its owner and name, so that a second
            /// creation under the same name meets the first one's stream.
            pub fn derived(owner: &str, name: &str) -> Self {
                Self(derive($prefix, owner, name))
            }

            /// The 128 bits.
            pub const fn bits(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), BASE32_DNSSEC.encode(self.0.as_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse($prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A tenant.
    WorkspaceId = "ws";
    /// A project of a workspace.
    ProjectId = "prj";
    /// A named, versioned workflow definition.
    DefinitionId = "wfd";
    /// A definition bound to a project.
    WorkflowId = "wf";
    /// A named, versioned action.
    ActionId = "act";
    /// A named, versioned prompt.
    PromptSpecId = "ps";
    /// A model with its parameters and prices.
    ModelProfileId = "mp";
    /// A trigger of a workflow.
    TriggerId = "trg";
    /// An experiment of a workspace, by its name.
    ExperimentId = "exp";
    /// One run of a definition.
    RunId = "run";
    /// One event of the journal.
    EventId = "evt";
    /// One command, as a client or a service sent it.
    CommandId = "cmd";
    /// A read that is recorded.
    AccessId = "acc";
    /// An API key (the key's public half, never the secret).
    ApiKeyId = "key";
}

impl RunId {
    /// The child that a token of this run starts: always the same, and with the lower half of its
    /// parent's id, by which runs are spread, so that a run and all below it have one owner.
    pub fn child(self, token: u64) -> Self {
        self.home().run(derive("run", &self.to_string(), &token.to_string()))
    }

    /// The run that a trigger starts for what has happened: always the same.
    pub fn triggered(workflow: WorkflowId, trigger: &Name, key: &str) -> Self {
        Self(derive("run", &format!("{workflow}/{trigger}"), key))
    }

    /// The same with the lower half of its workflow's id, by which runs are spread: whoever looks
    /// after the workflow's triggers has the run as well.
    pub fn triggered_beside(workflow: WorkflowId, trigger: &Name, key: &str) -> Self {
        Home::of(workflow.bits()).run(Self::triggered(workflow, trigger, key).0)
    }

    /// A run of a queue: it has the lower half that all runs of the queue have, so that they have
    /// one owner. Its upper half is derived from the command that starts it.
    pub fn in_queue(command_id: CommandId, home: Home) -> Self {
        home.run(derive("queued", &command_id.to_string(), ""))
    }

    /// The fork of this run that a command makes, always the same: beside this run, or where the
    /// runs of its queue are.
    pub fn forked(self, command_id: CommandId, home: Home) -> Self {
        home.run(derive("fork", &self.to_string(), &command_id.to_string()))
    }

    /// The lower half, by which runs are spread.
    pub fn home(self) -> Home {
        Home::of(self.0)
    }
}

impl ExperimentId {
    /// The experiment of a name.
    pub fn of(workspace: WorkspaceId, name: &str) -> Self {
        Self::derived(&workspace.to_string(), name)
    }
}

impl TriggerId {
    /// The trigger's own events, by its workflow and its name.
    pub fn of(workflow: WorkflowId, name: &Name) -> Self {
        Self::derived(&workflow.to_string(), name.as_str())
    }
}

/// The lower half of the ids of runs that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Home(u64);

impl Home {
    /// Of the runs of a definition with a concurrency key.
    pub fn of_queue(definition: DefinitionId, key: Option<&str>) -> Self {
        let prefix = if key.is_some() { "key" } else { "queue" };
        Self::of(derive(prefix, &definition.to_string(), key.unwrap_or_default()))
    }

    const fn of(bits: Uuid) -> Self {
        Self(bits.as_u128() as u64)
    }

    /// The run that has the upper half of these bits.
    fn run(self, upper: Uuid) -> RunId {
        let high = upper.as_u128() >> 64;
        RunId(Uuid::from_u128(high << 64 | u128::from(self.0)))
    }

    /// The run with no upper half: it is in the shard, and on the worker, of all of them.
    pub fn first_run(self) -> RunId {
        RunId(Uuid::from_u128(u128::from(self.0)))
    }
}

fn derive(prefix: &str, owner: &str, name: &str) -> Uuid {
    let mut hash = Sha256::new();
    for part in [prefix, owner, name] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::from_bytes(bytes)
}

/// A name that people choose: `[A-Za-z0-9_-]{1,64}`. The empty text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text isn't a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: use 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct InvalidName(pub String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidName(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_it_was_written() {
        let id = RunId::new(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("run_"));
        assert_eq!(id.to_string().len(), 30);
    }

    #[test]
    fn ids_sort_as_their_text() {
        let early = RunId::new(Uuid::from_u128(1));
        let late = RunId::new(Uuid::from_u128(u128::MAX));
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn a_wrong_prefix_length_or_character_is_refused() {
        let id = RunId::new(Uuid::from_u128(7)).to_string();
        assert!(id.replace("run", "wf").parse::<RunId>().is_err());
        assert!(id[..29].parse::<RunId>().is_err());
        assert!(id.replace('0', "z").parse::<RunId>().is_err());
        assert!("".parse::<RunId>().is_err());
    }

    #[test]
    fn derived_ids_depend_on_owner_and_name() {
        let id = WorkflowId::derived("prj_1", "ship");
        assert_eq!(id, WorkflowId::derived("prj_1", "ship"));
        assert_ne!(id, WorkflowId::derived("prj_1s", "hip"));
        assert_ne!(id.bits(), ActionId::derived("prj_1", "ship").bits());
    }

    #[test]
    fn a_child_is_derived_and_stays_beside_its_parent() {
        let parent = RunId::new(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_ffc5));
        let child = parent.child(7);
        assert_eq!(child, parent.child(7));
        assert_ne!(child, parent.child(8));
        assert_ne!(child.child(7), child);
        let low = |id: RunId| id.bits().as_u128() as u64;
        assert_eq!(low(child.child(1)), low(parent));
    }

    #[test]
    fn the_runs_of_a_queue_have_one_home() {
        let definition = DefinitionId::derived("prj", "judge");
        let home = Home::of_queue(definition, Some("ann"));
        let command = |number| CommandId::new(Uuid::from_u128(number));
        let (first, second) =
            (RunId::in_queue(command(1), home), RunId::in_queue(command(2), home));
        assert_eq!(first, RunId::in_queue(command(1), home));
        assert_ne!(first, second);
        assert_eq!((first.home(), second.home()), (home, home));
        assert_eq!(first.child(1).home(), home);
        assert_ne!(home, Home::of_queue(definition, Some("bob")));
        assert_ne!(Home::of_queue(definition, None), Home::of_queue(definition, Some("")));
        assert_eq!(home.first_run().home(), home);
    }

    #[test]
    fn a_hostile_text_is_an_id_or_a_name_or_refused() {
        let valid = ["run_01900000000000000000000000", "wf_0000000000000000000000000c", "a-B_9"];
        graphs::holds(1_000, graphs::hostile_text(&valid), |text| {
            if let Ok(id) = text.parse::<RunId>() {
                assert_eq!(id.to_string(), text);
            }
            match text.parse::<Name>() {
                Ok(name) => assert!(name.as_str() == text && (1..=64).contains(&text.len())),
                Err(InvalidName(shown)) => assert!(text.starts_with(&shown)),
            }
        });
    }

    #[test]
    fn names_are_bounded() {
        assert!("x".repeat(64).parse::<Name>().is_ok());
        assert!("judge-panel_2".parse::<Name>().is_ok());
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
