//! `wonder serve`: the platform, until a signal ends it.

use std::io::Read;

use tokio::sync::oneshot;

use crate::config::{self, AuthMode, ServerArgs};
use crate::exit::{Exit, Failure};
use crate::output::{self, say};
use crate::server::{self, PortBusy};
use crate::wiring;

/// How to serve.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// For a parent process: print the address on stdout, and stop when stdin ends
    #[arg(long, hide = true)]
    attached: bool,
}

pub(crate) async fn execute(args: ServeArgs) -> Result<Exit, Failure> {
    let config = config::load(&args.server, AuthMode::Keys)
        .map_err(|error| Failure::Refused(format!("{error:#}")))?
        .value;
    server::check_exposure(&config)?;
    if config.auth == AuthMode::Keys && config.admin_key.is_none() {
        say!("no WONDER_ADMIN_KEY is set: only API keys made earlier are let in");
    }
    let listener = server::bind(config.listen, PortBusy::Fail)?;
    let shutdown = server::signals()?;
    let platform = wiring::start(&config, listener).await?;
    if args.attached {
        output::line(&platform.url)?;
        tokio::select! {
            () = shutdown.requested() => {}
            _ = end_of_stdin() => {}
        }
    } else {
        say!("serving {} · data {}", platform.url, platform.place);
        shutdown.requested().await;
        say!("stopping");
    }
    platform.stop(&shutdown).await?;
    Ok(Exit::Completed)
}

/// Resolves when the parent has closed our stdin. A thread of its own waits for it: a task that
/// blocks would hold up the end of the program.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut rest = [0_u8; 64];
        while std::io::stdin().read(&mut rest).is_ok_and(|read| read > 0) {}
        // The receiver is gone where a signal came first.
        ended.send(()).ok();
    });
    end
}
