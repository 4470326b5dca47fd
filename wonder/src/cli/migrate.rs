//! `wonder migrate`: brings the tables of the database up to date.

use chassis::database::Database;

use crate::config::{self, AuthMode, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::output::say;
use crate::wiring;

/// Which database.
#[derive(Debug, clap::Args)]
pub(crate) struct MigrateArgs {
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn execute(args: MigrateArgs) -> Result<Exit, Failure> {
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    let Some(url) = &config.database_url else {
        let text = "there is no database to migrate: set DATABASE_URL or --database-url";
        return Err(Failure::Refused(text.to_owned()));
    };
    let options = wiring::database_options(&config, url.reveal());
    let database = Database::connect(&options).await.map_err(anyhow::Error::from)?;
    database.migrate().await.map_err(anyhow::Error::from)?;
    database.close().await;
    say!("the database is up to date");
    Ok(Exit::Completed)
}
