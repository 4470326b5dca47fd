//! The folder that runs are written to before content of them is dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use chassis::journal::Journal;
use commands::Archives;
use domain::ids::RunId;
use domain::retention::Archive;

use crate::bundle_file::{self, Secrets};
use crate::exit::Failure;
use crate::part_file::PartFile;

/// A folder of bundles, one a run. Several processes may share it: a file that is there and whole
/// is never written again.
pub(super) struct Folder {
    journal: Arc<dyn Journal>,
    folder: PathBuf,
}

impl Folder {
    /// Makes the folder where it is missing.
    pub(super) fn open(journal: Arc<dyn Journal>, folder: &Path) -> anyhow::Result<Arc<Self>> {
        let unfit = || format!("runs can't be written to --archive-dir {}", folder.display());
        let folder =
            folder.to_str().and_then(|url| url.strip_prefix("file://")).map_or(folder, Path::new);
        std::fs::create_dir_all(folder).with_context(unfit)?;
        let folder = folder.canonicalize().with_context(unfit)?;
        PartFile::create(&folder.join("probe")).map_err(anyhow::Error::from).with_context(unfit)?;
        Ok(Arc::new(Self { journal, folder }))
    }

    async fn written(&self, run_id: RunId, sequence: u64) -> Result<Archive, Failure> {
        let path = self.folder.join(format!("{run_id}.wonder"));
        if let Some(archive) = there(&path, run_id, sequence).await {
            return Ok(archive);
        }
        let mut plain = bundle_file::plain(&path)?;
        bundle_file::lines(&self.journal, run_id, &mut plain).await?;
        let to = path.clone();
        let packing = move || -> Result<PartFile, Failure> {
            Ok(bundle_file::pack(plain.whole()?, &to, Secrets::Unseen, true)?.0)
        };
        let mut file =
            tokio::task::spawn_blocking(packing).await.map_err(anyhow::Error::from)??;
        let missing = |path: &Path| {
            let text = format!("{} doesn't have all of the run", path.display());
            Failure::Refused(text)
        };
        if !has(file.whole()?, run_id, sequence).await {
            return Err(missing(&path));
        }
        // One that came first and is whole is as good; what isn't whole is nobody's.
        if file.keep_first()? || has(&path, run_id, sequence).await {
            return there(&path, run_id, sequence).await.ok_or_else(|| missing(&path));
        }
        Err(Failure::Refused(format!("{} is there, and has something else", path.display())))
    }
}

/// The bundle of a run, where it is there with all of it.
async fn there(path: &Path, run_id: RunId, sequence: u64) -> Option<Archive> {
    if !path.exists() || !has(path, run_id, sequence).await {
        return None;
    }
    let sha256 = bundle_file::sha256(path).ok()?;
    Some(Archive { location: path.display().to_string(), sha256 })
}

/// Whether a file is a whole bundle of a run, up to an event.
async fn has(path: &Path, run_id: RunId, sequence: u64) -> bool {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || bundle_file::opened(&path).ok()).await;
    let Ok(Some(bundle)) = opened else { return false };
    let view = bundle.view().await;
    view.is_ok_and(|view| {
        let root = view.runs.first();
        root.is_some_and(|root| root.run_id == run_id.to_string() && root.sequence == sequence)
    })
}

#[async_trait]
impl Archives for Folder {
    async fn write(&self, run_id: RunId, sequence: u64) -> Result<Archive, String> {
        self.written(run_id, sequence).await.map_err(|failure| failure.to_string())
    }
}
