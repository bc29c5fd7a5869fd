//! Docker's plugins, as the tests of BuildKit's protocol run them: by themselves, so that it does not matter which client is here.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::kit::{Daemon, Said};

/// The plugins of one of Debian's releases.
pub(crate) struct Plugins {
    pub(crate) release: String,
    dir: PathBuf,
}

/// All that can be had and run here; each test that finds none says so.
pub(crate) fn plugins() -> &'static [Plugins] {
    static ALL: OnceLock<(Vec<Plugins>, String)> = OnceLock::new();
    let (all, why) = ALL.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-plugins");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/docker-plugins");
        let said: Said = match Command::new(script).arg(&dir).stdin(Stdio::null()).output() {
            Ok(output) => output.into(),
            Err(error) => Said { code: -1, out: String::new(), err: error.to_string() },
        };
        let mut why = said.err.trim().to_owned();
        let found = said.out.lines().map(|release| Plugins { release: release.into(), dir: dir.join(release) });
        let all = found.filter(|plugins| match plugins.check() {
            Ok(()) => true,
            Err(error) => {
                why.push_str(&format!(" {}: {error}", plugins.release));
                false
            }
        });
        (all.collect(), why)
    });
    if all.is_empty() {
        eprintln!("skipped: Docker's plugins cannot be had from Debian's mirror: {why}");
    }
    all
}

impl Plugins {
    /// Whether both run here: a later release may need a later libc.
    fn check(&self) -> Result<(), String> {
        for program in ["docker-buildx", "docker-compose"] {
            let output = Command::new(self.dir.join(program)).arg("version").stdin(Stdio::null()).output();
            let output = output.map_err(|e| format!("{program}: {e}"))?;
            if !output.status.success() {
                return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
        }
        Ok(())
    }

    /// Docker's configuration, in a directory of the daemon's.
    pub(crate) fn config(&self, d: &Daemon) -> PathBuf {
        d.path().join(format!("config-{}", self.release))
    }

    fn command(&self, d: &Daemon, dir: &Path, program: &str) -> Command {
        let config = self.config(d);
        std::fs::create_dir_all(config.join("cli-plugins")).unwrap();
        let plugin = config.join("cli-plugins/docker-buildx");
        if !plugin.exists() {
            std::os::unix::fs::symlink(self.dir.join("docker-buildx"), plugin).unwrap();
        }
        let mut command = Command::new(self.dir.join(program));
        command
            .current_dir(dir)
            .env("DOCKER_HOST", format!("unix://{}", d.socket().display()))
            .env("DOCKER_CONFIG", config)
            .env("BUILDKIT_PROGRESS", "plain")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn buildx_command(&self, d: &Daemon, dir: &Path) -> Command {
        self.command(d, dir, "docker-buildx")
    }

    /// Runs buildx in a directory, its words separated by blanks.
    pub(crate) fn buildx(&self, d: &Daemon, dir: &Path, words: &str) -> Said {
        self.buildx_command(d, dir).args(words.split_whitespace()).output().unwrap().into()
    }

    pub(crate) fn compose_command(&self, d: &Daemon, dir: &Path) -> Command {
        self.command(d, dir, "docker-compose")
    }
}

/// A directory of the daemon's with these files.
pub(crate) fn directory(d: &Daemon, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = d.path().join(name);
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}
