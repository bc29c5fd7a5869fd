//! Volumes that a plugin has, which is a small server of the test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::kit::Daemon;

#[derive(Default)]
struct State {
    /// What was asked, in order: the method and the volume.
    calls: Vec<String>,
    volumes: BTreeMap<String, Value>,
    /// Who has which volume mounted: `VOLUME by USER`.
    mounts: BTreeSet<String>,
    /// The next answer to this method is an error.
    fails: Option<&'static str>,
}

/// A plugin that listens for as long as it is there.
struct Plugin {
    state: Arc<Mutex<State>>,
    socket: PathBuf,
}

impl Plugin {
    fn start(dir: &Path, name: &str, state: Arc<Mutex<State>>) -> Self {
        std::fs::create_dir_all(dir.join("plugins")).unwrap();
        let (socket, content) = (dir.join(format!("plugins/{name}.sock")), dir.join("content"));
        let listener = UnixListener::bind(&socket).unwrap();
        let own = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                if !serve(stream, &own, &content) {
                    return;
                }
            }
        });
        Self { state, socket }
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    fn mounts(&self) -> Vec<String> {
        self.state.lock().unwrap().mounts.iter().cloned().collect()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Ok(mut stream) = UnixStream::connect(&self.socket) {
            let _ = stream.write_all(b"POST /end HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Answers one request; false after the last.
fn serve(stream: UnixStream, state: &Mutex<State>, content: &Path) -> bool {
    let mut input = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    if input.read_line(&mut line).unwrap_or(0) == 0 {
        return true;
    }
    let method = line.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    loop {
        line.clear();
        input.read_line(&mut line).unwrap();
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body).unwrap();
    if method == "end" {
        return false;
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer) = answer(&mut state.lock().unwrap(), content, &method, &body);
    let text = answer.to_string();
    // In two chunks, as a server in Go may write.
    let (first, second) = text.split_at(text.len() / 2);
    let mut output = input.into_inner();
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    let _ = write!(
        output,
        "HTTP/1.1 {status} X\r\nContent-Type: application/vnd.docker.plugins.v1.2+json\r\nTransfer-Encoding: \
         chunked\r\n\r\n{}{}0\r\n\r\n",
        chunk(first),
        chunk(second)
    );
    true
}

fn answer(state: &mut State, content: &Path, method: &str, body: &Value) -> (u16, Value) {
    let name = body["Name"].as_str().unwrap_or_default().to_owned();
    let call = method.trim_start_matches("VolumeDriver.");
    state.calls.push(format!("{call} {name}").trim_end().to_owned());
    if state.fails.is_some_and(|fails| fails == call) {
        state.fails = None;
        return (500, json!({ "Err": format!("{call} has no mind to") }));
    }
    let path = content.join(&name);
    let user = format!("{name} by {}", body["ID"].as_str().unwrap_or_default());
    let volume = |name: &str| json!({ "Name": name, "Mountpoint": content.join(name), "Status": { "hello": "world" } });
    let known = state.volumes.contains_key(&name);
    let good = json!({ "Err": "" });
    let said = match call {
        "Plugin.Activate" => json!({ "Implements": ["VolumeDriver"] }),
        "Create" => {
            std::fs::create_dir_all(&path).unwrap();
            state.volumes.insert(name, body["Opts"].clone());
            good
        }
        "List" => json!({ "Volumes": state.volumes.keys().map(|name| volume(name)).collect::<Vec<_>>(), "Err": "" }),
        "Capabilities" => json!({ "Capabilities": { "Scope": "global" } }),
        _ if !known => json!({ "Err": "no such volume" }),
        "Get" => json!({ "Volume": volume(&name), "Err": "" }),
        "Path" => json!({ "Mountpoint": path }),
        "Mount" => {
            state.mounts.insert(user);
            json!({ "Mountpoint": path, "Err": "" })
        }
        "Unmount" => {
            if state.mounts.remove(&user) {
                good
            } else {
                json!({ "Err": "not mounted" })
            }
        }
        "Remove" => {
            std::fs::remove_dir_all(&path).unwrap();
            state.volumes.remove(&name);
            good
        }
        other => panic!("{other}"),
    };
    (200, said)
}

/// A daemon that looks for plugins in a folder of its own, and a plugin there.
fn start(name: &str) -> Option<(Daemon, Plugin)> {
    let dir = tempfile::Builder::new().prefix("wharf-plugins-").tempdir().unwrap();
    let d = Daemon::start_given(&["--plugin-dir", dir.path().join("plugins").to_str().unwrap()])?;
    let plugin = Plugin::start(&dir.keep(), name, Arc::default());
    Some((d, plugin))
}

fn clean(plugin: Plugin) {
    let dir = plugin.socket.parent().unwrap().parent().unwrap().to_owned();
    drop(plugin);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_plugin_makes_mounts_and_removes_volumes() {
    let Some((d, plugin)) = start("store") else { return };
    d.docker("volume create -d store -o tier=fast --label a=b data").ok();
    assert_eq!(plugin.said(), ["Plugin.Activate", "Get data", "Create data", "Capabilities", "Get data"]);
    assert_eq!(plugin.state.lock().unwrap().volumes["data"], json!({ "tier": "fast" }));
    let shown = d.docker("volume inspect data --format {{.Driver}},{{.Scope}},{{.Labels.a}},{{.Status.hello}}").ok();
    assert_eq!(shown, "store,global,b,world");
    assert!(d.docker("info --format {{.Plugins.Volume}}").ok().contains("store"));

    // The image's content comes in on the first use, and stays.
    plugin.said();
    assert!(d.docker("run --rm -v data:/etc busybox cat /etc/passwd").ok().starts_with("root:"));
    let said = plugin.said();
    let count = |what: &str| said.iter().filter(|line| *line == what).count();
    assert_eq!((count("Mount data"), count("Unmount data")), (2, 2), "{said:?}");
    assert_eq!(count("Plugin.Activate"), 0);
    assert!(plugin.mounts().is_empty());
    d.docker("run --rm -v data:/x busybox sh -c echo>/x/kept").ok();
    d.docker("run --name user -v data:/x busybox test -e /x/kept").ok();
    // `cp` has it mounted for its while.
    let out = d.path().join("out");
    d.docker(&format!("cp user:/x/passwd {}", out.display())).ok();
    assert!(std::fs::read_to_string(&out).unwrap().starts_with("root:"));
    assert!(plugin.mounts().is_empty());

    let taken = d.docker("volume rm -f data");
    assert!(taken.err.contains("volume is in use - ["), "{}", taken.err);
    d.docker("rm user").ok();
    // One name is one volume.
    let other = d.docker("volume create data");
    assert!(other.err.contains("driver 'store' already has volume 'data'"), "{}", other.err);
    // What only the plugin knows is seen, used and removed, too.
    plugin.state.lock().unwrap().volumes.insert("foreign".into(), Value::Null);
    std::fs::create_dir_all(plugin.socket.with_file_name("../content/foreign")).unwrap();
    assert_eq!(d.docker("volume ls -q").ok(), "data\nforeign");
    assert_eq!(d.docker("volume ls -q -f driver=local").ok(), "");
    assert_eq!(d.docker("volume inspect foreign --format {{.Driver}}").ok(), "store");
    d.docker("volume rm foreign").ok();
    // What the plugin has lost is made anew.
    plugin.state.lock().unwrap().volumes.remove("data");
    d.docker("volume create -d store -o tier=slow data").ok();
    assert_eq!(plugin.state.lock().unwrap().volumes["data"], json!({ "tier": "slow" }));
    assert_eq!(d.docker("volume inspect data --format {{.Options.tier}}").ok(), "slow");
    // A prune takes nothing of a plugin's.
    assert!(!d.docker("volume prune -af").ok().contains("data"));
    plugin.state.lock().unwrap().fails = Some("Remove");
    let refused = d.docker("volume rm data");
    assert!(refused.err.contains("remove data: VolumeDriver.Remove: Remove has no mind to"), "{}", refused.err);
    d.docker("volume rm data").ok();
    assert_eq!(d.docker("volume ls -q").ok(), "");
    assert!(plugin.state.lock().unwrap().volumes.is_empty());
    // Anonymous ones go with their container. Of content that the image has not, there is no mount.
    plugin.said();
    d.docker("run --rm --volume-driver store -v /anonymous busybox true").ok();
    let said = plugin.said();
    let count = |what: &str| said.iter().filter(|line| line.starts_with(what)).count();
    let counts = ["Create", "Mount", "Unmount", "Remove", "Capabilities"].map(count);
    assert_eq!(counts, [1, 1, 1, 1, 0], "{said:?}");
    d.docker("run --rm --mount type=volume,dst=/m,volume-driver=store,volume-opt=k=v busybox true").ok();
    assert!(plugin.state.lock().unwrap().volumes.is_empty());
    clean(plugin);
}

#[test]
fn a_plugin_hears_of_the_end_of_its_users_after_a_kill() {
    let Some((mut d, plugin)) = start("store") else { return };
    d.docker("volume create -d store data").ok();
    let one = d.docker("run -d -v data:/x busybox sleep 1000").ok();
    let two = d.docker("run -d -v data:/x busybox sleep 1000").ok();
    let by = |id: &str| format!("data by {id}");
    assert_eq!(plugin.mounts().len(), 2);
    let pid: i32 = d.docker(&format!("inspect {one} --format {{{{.State.Pid}}}}")).ok().parse().unwrap();
    d.kill();
    plugin.said();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    d.launch();
    // What runs is not mounted again, what has ended is let go.
    d.eventually("the plugin has heard of the end", || plugin.mounts() == [by(&two)]);
    assert!(!plugin.said().contains(&"Mount data".to_owned()));
    d.docker(&format!("rm -f {two}")).ok();
    assert!(plugin.mounts().is_empty());
    d.docker(&format!("rm {one}")).ok();

    // A plugin that has gone is told of, and its volume can be forgotten.
    let state = Arc::clone(&plugin.state);
    let dir = plugin.socket.parent().unwrap().parent().unwrap().to_owned();
    drop(plugin);
    let gone = d.docker("run --rm -v data:/x busybox true");
    assert!(gone.err.contains("error looking up volume plugin store: plugin \"store\" not found"), "{}", gone.err);
    assert_eq!(d.docker("volume ls -q").ok(), "data");
    assert!(d.docker("volume rm data").err.contains("plugin \"store\" not found"));
    let plugin = Plugin::start(&dir, "store", state);
    d.docker("run --rm -v data:/x busybox true").ok();
    plugin.state.lock().unwrap().fails = Some("Mount");
    let failed = d.docker("run --rm -v data:/x busybox true");
    assert!(failed.err.contains("VolumeDriver.Mount: Mount has no mind to"), "{}", failed.err);
    assert!(plugin.mounts().is_empty());
    let dir = plugin.socket.parent().unwrap().parent().unwrap().to_owned();
    drop(plugin);
    d.docker("volume rm -f data").ok();
    assert_eq!(d.docker("volume ls -q").ok(), "");
    std::fs::remove_dir_all(dir).unwrap();
}
