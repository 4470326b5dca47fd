//! A run as a bundle: one file, streamed as it is read, and looked through for keys on its way.

use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use domain::bundle::{Line, Screen, Seal, places};
use domain::ids::{RunId, WorkspaceId};
use futures::stream;
use protocol::bundle::{BundleFrom, BundlePart};
use protocol::{Rejection, RejectionKind};
use serde_json::value::RawValue;

use crate::call::Call;
use crate::download;
use crate::edge::Edge;
use crate::problem::Problem;

/// Bytes of a bundle that are looked through before anything of it is sent; the rest is on its way.
/// With one part more that much of it is in memory.
const AHEAD_BYTES: usize = 16 * 1024 * 1024;

/// What becomes of keys that somebody has typed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Secrets {
    /// The bundle is refused.
    #[default]
    Refuse,
    /// They are masked.
    Mask,
    /// They stay, and nobody looks for them.
    Allow,
}

impl FromStr for Secrets {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "mask" => Ok(Self::Mask),
            "allow" => Ok(Self::Allow),
            _ => Err("write refuse, mask or allow"),
        }
    }
}

/// What is being sent.
struct Sending {
    edge: Arc<Edge>,
    workspace_id: WorkspaceId,
    run_id: RunId,
    secrets: Secrets,
    /// What looks through the lines where somebody is to: but while a thread has it.
    screen: Option<Screen>,
    /// The lines of parts that were read and aren't sent.
    ahead: VecDeque<Vec<Box<RawValue>>>,
    /// What is asked for next.
    from: Option<BundleFrom>,
    seal: Seal,
    is_ended: bool,
}

/// `GET /runs/{id}/bundle`.
pub(crate) async fn of_run(call: Call) -> Result<Response, Problem> {
    let (workspace_id, run_id) = (call.caller()?.workspace_id, call.id()?);
    let secrets = call.asked_as("secrets")?.unwrap_or_default();
    let (edge, masks) = (Arc::clone(&call.edge), secrets == Secrets::Mask);
    let from = Some(BundleFrom::Start { at: edge.gateway.environment.now() });
    let mut sending = Sending {
        edge,
        workspace_id,
        run_id,
        secrets,
        screen: (secrets != Secrets::Allow).then(|| Screen::new(workspace_id, masks)),
        ahead: VecDeque::new(),
        from,
        seal: Seal::default(),
        is_ended: false,
    };
    // Refusals come before the first byte.
    sending.look_ahead().await?;
    let pieces = stream::try_unfold(sending, Sending::next);
    Ok(download::respond(call, &format!("{run_id}.wonder"), pieces))
}

impl Sending {
    /// Reads the beginning: as much as is looked through before it is sent, else one part.
    async fn look_ahead(&mut self) -> Result<(), Rejection> {
        let bytes = if self.secrets == Secrets::Refuse { AHEAD_BYTES } else { 1 };
        let mut read = 0;
        while read < bytes {
            let Some(lines) = self.read().await? else { break };
            read += lines.iter().map(|line| line.get().len()).sum::<usize>();
            self.ahead.push_back(lines);
        }
        self.is_clean()
    }

    /// The lines of the next part, looked through.
    async fn read(&mut self) -> Result<Option<Vec<Box<RawValue>>>, Rejection> {
        let Some(from) = self.from.take() else { return Ok(None) };
        let runs = &self.edge.gateway.runs;
        let BundlePart { mut lines, next } =
            runs.bundle(self.workspace_id, self.run_id, from).await?;
        self.from = next.map(BundleFrom::Next);
        if let Some(mut screen) = self.screen.take() {
            let masks = self.secrets == Secrets::Mask;
            let screening = move || -> Result<_, serde_json::Error> {
                for text in &mut lines {
                    let line = screen.take(serde_json::from_str(text.get())?)?;
                    if masks {
                        *text = line.to_raw()?;
                    }
                }
                Ok((screen, lines))
            };
            let screened = tokio::task::spawn_blocking(screening).await;
            let screened = screened.map_err(|error| internal(&error))?;
            let (screen, screened) = screened.map_err(|error| internal(&error))?;
            self.screen = Some(screen);
            lines = screened;
        }
        Ok(Some(lines))
    }

    /// Refuses what has keys in it, where that is asked for.
    fn is_clean(&self) -> Result<(), Rejection> {
        let found = self.screen.as_ref().map(Screen::found);
        match found {
            Some((first, count)) if self.secrets == Secrets::Refuse && count > 0 => {
                let message = format!(
                    "{}\ngive the keys up where they are in use, and ask with secrets=mask, which \
                     puts masks there, or secrets=allow",
                    places(first, count)
                );
                Err(Rejection::new(RejectionKind::Invalid, "bundle_has_keys", message))
            }
            _ => Ok(()),
        }
    }

    /// The next lines. Without its end a bundle isn't whole.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Rejection> {
        let lines = match self.ahead.pop_front() {
            Some(lines) => Some(lines),
            None => self.read().await?,
        };
        self.is_clean()?;
        let mut text = Vec::new();
        for line in lines.into_iter().flatten() {
            self.seal.take(line.get().as_bytes());
            text.extend_from_slice(line.get().as_bytes());
            text.push(b'\n');
        }
        if self.ahead.is_empty() && self.from.is_none() {
            if std::mem::replace(&mut self.is_ended, true) {
                return Ok(None);
            }
            let end = Line::End(std::mem::take(&mut self.seal).end()).to_raw();
            let end = end.map_err(|error| internal(&error))?;
            text.extend_from_slice(end.get().as_bytes());
            text.push(b'\n');
        }
        Ok(Some((text.into(), self)))
    }
}

fn internal(error: &dyn std::fmt::Display) -> Rejection {
    Rejection::new(RejectionKind::Internal, "internal", error.to_string())
}
