//! The folder of this project, with the template and the launcher.

use std::{
    env,
    path::{Path, PathBuf},
};

pub(crate) const LAUNCHER: &str = "crates/local-aws/python/local_aws.py";

/// The project's folder, with template and launcher, was not found.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// Neither the current directory nor this program's source is in it.
    #[error(
        "the project's folder is not found from {0}: go there, or set HARMONY_ROOT to the folder with template.yaml"
    )]
    NoRoot(PathBuf),
    /// `HARMONY_ROOT` names another folder.
    #[error("HARMONY_ROOT is {0}, where there is no template.yaml with {LAUNCHER}: set it to the project's folder")]
    WrongRoot(PathBuf),
}

/// The project's folder: `HARMONY_ROOT`, or the first folder with template and launcher from the current directory
/// upwards, or the folder that this program was built in.
pub fn root() -> Result<PathBuf, CheckoutError> {
    let is_root = |folder: &Path| folder.join("template.yaml").is_file() && folder.join(LAUNCHER).is_file();
    if let Some(root) = env::var_os("HARMONY_ROOT").filter(|root| !root.is_empty()) {
        let root = PathBuf::from(root);
        return if is_root(&root) { Ok(root) } else { Err(CheckoutError::WrongRoot(root)) };
    }
    let here = env::current_dir().unwrap_or_default(); // a deleted folder has no project above it
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().chain(built.ancestors()).find(|folder| is_root(folder)).map(Path::to_owned);
    found.ok_or(CheckoutError::NoRoot(here))
}
