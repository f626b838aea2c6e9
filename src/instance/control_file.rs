//! The control file, read by `pg_controldata`, and again only when it has changed.
//!
//! The program takes 15 ms of a processor; the file is 8 kB and changes with checkpoints and, on a
//! standby, with replay. Its bytes are compared, so an old reading is never taken for a new one.
//! Leaves the meaning of what is printed to `control_data`.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{control_data, options::Options, process, protocol::ControlData};

/// For a program that reads one file.
const PROGRAM: Duration = Duration::from_secs(10);

/// The last reading and the bytes that it was made from.
#[derive(Default)]
pub struct ControlFile {
    last: Mutex<Option<(Vec<u8>, ControlData)>>,
}

impl ControlFile {
    /// What `pg_controldata` says of the file as it is now, or why not.
    ///
    /// # Errors
    /// In words: no data, or the program's refusal.
    pub async fn read(&self, options: &Options) -> Result<ControlData, String> {
        let before = bytes(options);
        if let Some((_, known)) = self.last().as_ref().filter(|(of, _)| Some(of) == before.as_ref())
        {
            return Ok(known.clone());
        }
        let read = read(options).await?;
        // Written to while it was read: this reading is of one of the two, and nobody knows which.
        let same = before.filter(|before| bytes(options).as_ref() == Some(before));
        *self.last() = same.map(|bytes| (bytes, read.clone()));
        Ok(read)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<(Vec<u8>, ControlData)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes(options: &Options) -> Option<Vec<u8>> {
    std::fs::read(file(options)).ok()
}

fn file(options: &Options) -> PathBuf {
    options.data_directory.join("global/pg_control")
}

/// `pg_controldata`, whatever was read before.
///
/// # Errors
/// In words: no data, or the program's refusal.
pub async fn read(options: &Options) -> Result<ControlData, String> {
    if !options.has_data() {
        return Err("the data folder is empty".to_owned());
    }
    let program = options.program("pg_controldata");
    let arguments = [options.data_directory.as_os_str()];
    let ran = process::run(options, &program, arguments, &[], PROGRAM).await;
    let ran = ran.map_err(|e| e.to_string())?;
    if !ran.success {
        return Err(format!("pg_controldata: {}", ran.err.trim()));
    }
    control_data::parse(&ran.out)
}
