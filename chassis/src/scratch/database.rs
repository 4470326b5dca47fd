//! A database of one's own on the server that `WONDER_TEST_POSTGRES` names.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use uuid::Uuid;

use crate::database::{Database, DatabaseOptions};

/// The URL of a role that may make databases.
const SERVER: &str = "WONDER_TEST_POSTGRES";

/// A migrated database that goes away with it. Panics where something is wrong: it is for tests.
#[derive(Debug)]
pub struct ScratchDatabase {
    server: PgConnectOptions,
    name: String,
    url: String,
}

impl ScratchDatabase {
    /// Makes the database and its tables.
    ///
    /// # Panics
    /// Where `WONDER_TEST_POSTGRES` isn't set, or the server refuses.
    pub async fn create() -> Self {
        let scratch = Self::empty().await;
        let database = scratch.connect().await;
        match database.migrate().await {
            Ok(()) => database.pool().close().await,
            Err(error) => panic!("the scratch database can't be migrated: {error}"),
        }
        scratch
    }

    /// Makes the database, without tables.
    ///
    /// # Panics
    /// As [`ScratchDatabase::create`].
    pub async fn empty() -> Self {
        let Ok(url) = std::env::var(SERVER) else {
            panic!("{SERVER} isn't set: run `make test`, which starts a PostgreSQL for the tests");
        };
        let server: PgConnectOptions = match url.parse() {
            Ok(server) => server,
            Err(error) => panic!("{SERVER} isn't a URL of a database: {error}"),
        };
        let name = format!("wonder_scratch_{}", Uuid::now_v7().simple());
        let url = server.clone().database(&name).to_url_lossy().to_string();
        let server = server.disable_statement_logging();
        // The other template may be in use by whoever looks at it.
        run(&server, &format!("create database {name} template template0")).await;
        Self { server, name, url }
    }

    /// `postgres://…` of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Options that suit a test.
    pub fn options(&self) -> DatabaseOptions {
        DatabaseOptions {
            url: self.url.clone(),
            connections: 6,
            name: "test".to_owned(),
            connect_timeout: Duration::from_secs(30),
        }
    }

    /// A pool of it.
    ///
    /// # Panics
    /// Where it can't be reached.
    pub async fn connect(&self) -> Database {
        match Database::connect(&self.options()).await {
            Ok(database) => database,
            Err(error) => panic!("the scratch database can't be used: {error}"),
        }
    }
}

impl Drop for ScratchDatabase {
    /// On a thread of its own, since a test's runtime can't be waited for from within. What fails
    /// is left to the server, which goes away after the tests.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let sql = format!("drop database if exists {name} with (force)");
                runtime.block_on(async {
                    if let Ok(mut connection) = server.connect().await {
                        sqlx::raw_sql(&sql).execute(&mut connection).await.ok();
                        connection.close().await.ok();
                    }
                });
            }
        });
        thread.join().ok();
    }
}

async fn run(server: &PgConnectOptions, sql: &str) {
    let done = async {
        let mut connection = server.connect().await?;
        sqlx::raw_sql(sql).execute(&mut connection).await?;
        connection.close().await
    };
    if let Err(error) = done.await {
        panic!("the server of {SERVER} can't make a scratch database: {error}");
    }
}
