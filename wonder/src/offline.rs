//! A platform's data without its services: for commands that look at it or look after it.

use std::sync::Arc;

use chassis::database::Database;
use chassis::journal::{Journal, PostgresJournal, PostgresOptions, SqliteJournal, SqliteOptions};
use projections::Views;

use crate::config::Config;
use crate::exit::Failure;
use crate::wiring;

/// An open journal, in the data folder or in the database that is configured.
pub(crate) enum Offline {
    Folder { journal: Arc<SqliteJournal>, views: Views },
    Database { database: Database, journal: Arc<PostgresJournal> },
}

impl Offline {
    /// Opens what is there; a folder without a journal is refused.
    pub(crate) async fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(url) = &config.database_url {
            let options = wiring::database_options(config, url.reveal());
            let database = Database::connect(&options).await.map_err(anyhow::Error::from)?;
            let journal = PostgresJournal::open(&database, PostgresOptions::default()).await;
            let journal = journal.map_err(anyhow::Error::from)?;
            return Ok(Self::Database { database, journal });
        }
        let path = config.journal_path();
        if !path.is_file() {
            let folder = path.display();
            let text = format!("there is no journal at {folder}: choose one with --data-dir");
            return Err(Failure::Refused(text));
        }
        let journal = SqliteJournal::open(&path, SqliteOptions::default()).await;
        let journal = journal.map_err(anyhow::Error::from)?;
        Ok(Self::Folder { journal, views: Views::File(config.views_path()) })
    }

    pub(crate) fn journal(&self) -> Arc<dyn Journal> {
        match self {
            Self::Folder { journal, .. } => Arc::clone(journal) as _,
            Self::Database { journal, .. } => Arc::clone(journal) as _,
        }
    }

    /// Where its read tables are.
    pub(crate) fn views(&self) -> Views {
        match self {
            Self::Folder { views, .. } => views.clone(),
            Self::Database { database, .. } => Views::Database(database.clone()),
        }
    }

    pub(crate) async fn close(self) {
        match self {
            Self::Folder { journal, .. } => journal.close().await,
            Self::Database { database, journal } => {
                journal.close().await;
                database.close().await;
            }
        }
    }
}
