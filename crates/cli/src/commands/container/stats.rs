//! `docker stats`.

use std::time::Duration;

use serde_json::Value as Json;
use tokio::sync::mpsc;
use wharf_client::{Client, JsonLines};
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{array, int, text};
use crate::parse::Matches;
use crate::units;
use crate::visible::visible;

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    Arity::AtLeast(0),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::switch("all", "Show all containers (default shows just running)").short('a'),
    Flag::text("format", TABLE_FORMAT),
    Flag::switch("no-stream", "Disable streaming stats and only pull the first result"),
    Flag::switch("no-trunc", "Do not truncate output"),
]);

const HEADERS: &Headers = &[
    ("Container", "CONTAINER"),
    ("Name", "NAME"),
    ("ID", "CONTAINER ID"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t\
    {{.PIDs}}";

/// How often the screen is drawn.
const INTERVAL: Duration = Duration::from_millis(500);
/// A container that says nothing for so long has nothing to say.
const PATIENCE: Duration = Duration::from_secs(2);

/// A container, by the name it was asked for, and what is known of it.
#[derive(Debug)]
struct Entry {
    container: String,
    stats: Option<Json>,
    valid: bool,
}

/// What comes in.
#[derive(Debug)]
enum Message {
    Stats(String, Json),
    Silent(String),
    Failed(String, String),
    Event(Json),
    EventsEnded,
}

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let all = matches.on("all");
    let stream = !matches.on("no-stream");
    let format = matches.some("format").or_else(|| app.config().text("statsFormat")).unwrap_or("table");
    let format = Format::parse(if format == "table" { TABLE } else { format })?;
    let trunc = !matches.on("no-trunc");
    let (sender, mut messages) = mpsc::unbounded_channel();
    let mut entries: Vec<Entry> = Vec::new();
    let watch_all = matches.arguments.is_empty();
    if watch_all {
        if stream {
            watch_events(client, &sender).await?;
        }
        let running: Vec<Json> = client.get("/containers/json").query_if(all, "all").send().await?.json().await?;
        for container in &running {
            add(client, &sender, &mut entries, units::short_id(text(&container["Id"])), stream);
        }
    } else {
        for name in &matches.arguments {
            add(client, &sender, &mut entries, name, stream);
        }
    }
    first_round(&mut messages, &mut entries, watch_all).await?;
    let draw = |entries: &[Entry]| -> Outcome {
        let rows: Vec<Value> = entries.iter().map(|entry| row(entry, trunc)).collect();
        let empty = row(&Entry { container: String::new(), stats: None, valid: false }, trunc);
        let table = format.render(HEADERS, &rows, &empty)?;
        // The screen is cleared line by line: a full clear flickers.
        if stream { app.draw(&screen(&visible(&table))) } else { app.print(&table) }
    };
    if !stream {
        draw(&entries)?;
        return Ok(0);
    }
    app.draw("\x1b[2J")?;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                draw(&entries)?;
                if entries.is_empty() && !watch_all {
                    return Ok(0);
                }
            }
            message = messages.recv() => match message {
                Some(Message::Event(event)) => apply(client, &sender, &mut entries, &event, all),
                Some(Message::EventsEnded) => return Ok(0),
                Some(message) => note(&mut entries, message),
                None => return Ok(0),
            },
        }
    }
}

fn screen(table: &str) -> String {
    let lines: Vec<String> = table.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{}\x1b[J", lines.concat())
}

/// Every container has said something, or has failed to.
async fn first_round(
    messages: &mut mpsc::UnboundedReceiver<Message>,
    entries: &mut [Entry],
    watch_all: bool,
) -> Outcome {
    let mut waiting: Vec<String> = entries.iter().map(|entry| entry.container.clone()).collect();
    let mut failures = Vec::new();
    while !waiting.is_empty() {
        let Some(message) = messages.recv().await else { break };
        if let Message::Stats(name, _) | Message::Silent(name) | Message::Failed(name, _) = &message {
            waiting.retain(|waiting| waiting != name);
        }
        if let Message::Failed(_, reason) = &message {
            failures.push(reason.clone());
        }
        note(entries, message);
    }
    if !watch_all && !failures.is_empty() {
        return Err(Failure::new(failures.join("\n")));
    }
    Ok(())
}

fn note(entries: &mut [Entry], message: Message) {
    let find = |entries: &mut [Entry], name: &str| entries.iter().position(|entry| entry.container == name);
    match message {
        Message::Stats(name, stats) => {
            if let Some(at) = find(entries, &name) {
                entries[at].stats = Some(stats);
                entries[at].valid = true;
            }
        }
        Message::Silent(name) | Message::Failed(name, _) => {
            if let Some(at) = find(entries, &name) {
                entries[at].valid = false;
            }
        }
        Message::Event(_) | Message::EventsEnded => {}
    }
}

fn apply(client: &Client, sender: &mpsc::UnboundedSender<Message>, entries: &mut Vec<Entry>, event: &Json, all: bool) {
    let id = units::short_id(text(&event["Actor"]["ID"])).to_owned();
    match text(&event["Action"]) {
        "start" => add(client, sender, entries, &id, true),
        "create" if all => add(client, sender, entries, &id, true),
        "die" if !all => entries.retain(|entry| entry.container != id),
        "destroy" => entries.retain(|entry| entry.container != id),
        _ => {}
    }
}

fn add(client: &Client, sender: &mpsc::UnboundedSender<Message>, entries: &mut Vec<Entry>, name: &str, stream: bool) {
    if entries.iter().any(|entry| entry.container == name) {
        return;
    }
    entries.push(Entry { container: name.to_owned(), stats: None, valid: false });
    let (client, sender, name) = (client.clone(), sender.clone(), name.to_owned());
    tokio::spawn(async move {
        if let Err(failure) = collect(&client, &sender, &name, stream).await {
            let _ = sender.send(Message::Failed(name, failure.text));
        }
    });
}

async fn collect(client: &Client, sender: &mpsc::UnboundedSender<Message>, name: &str, stream: bool) -> Outcome {
    let request = client.get(&format!("/containers/{name}/stats")).query("stream", u8::from(stream));
    let mut response = request.send().await?;
    let mut lines = JsonLines::default();
    loop {
        match tokio::time::timeout(PATIENCE, response.chunk()).await {
            Err(_) => {
                if sender.send(Message::Silent(name.to_owned())).is_err() || !stream {
                    return Ok(());
                }
            }
            Ok(chunk) => {
                let Some(chunk) = chunk? else {
                    let _ = sender.send(Message::Silent(name.to_owned()));
                    return Ok(());
                };
                for stats in lines.push(&chunk)? {
                    if sender.send(Message::Stats(name.to_owned(), stats)).is_err() || !stream {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Subscribed before the list is asked for: no container is missed in between.
async fn watch_events(client: &Client, sender: &mpsc::UnboundedSender<Message>) -> Outcome {
    let mut filters = Filters::default();
    filters.add("type", "container");
    let response = client.get("/events").query_some("filters", filters.parameter()).send().await?;
    let sender = sender.clone();
    tokio::spawn(async move {
        let forward = |event| {
            let sent = sender.send(Message::Event(event));
            sent.map_err(|_| Failure::code(0))
        };
        let _ = response.for_each_json(forward).await;
        let _ = sender.send(Message::EventsEnded);
    });
    Ok(())
}

fn row(entry: &Entry, trunc: bool) -> Value {
    let stats = entry.stats.clone().unwrap_or(Json::Null);
    let id = text(&stats["id"]);
    let name = text(&stats["name"]).strip_prefix('/').filter(|name| !name.is_empty()).unwrap_or("--");
    let shown = |value: String, missing: &str| if entry.valid { value } else { missing.to_owned() };
    let memory = &stats["memory_stats"];
    let (used, limit) = (memory_used(memory), int(&memory["limit"]) as f64);
    let percent = if limit == 0.0 { 0.0 } else { used / limit * 100.0 };
    let (received, sent) = network(&stats["networks"]);
    let (read, written) = block(&stats["blkio_stats"]);
    let pair = |a: f64, b: f64| format!("{} / {}", units::human_size_with(a, 3), units::human_size_with(b, 3));
    Row::new("*container.statsContext")
        .field("Container", entry.container.as_str())
        .field("Name", name)
        .field("ID", if trunc { units::short_id(id) } else { id })
        .field("CPUPerc", shown(format!("{:.2}%", cpu_percent(&stats)), "--"))
        .field("MemUsage", shown(format!("{} / {}", units::binary_size(used), units::binary_size(limit)), "-- / --"))
        .field("MemPerc", shown(format!("{percent:.2}%"), "--"))
        .field("NetIO", shown(pair(received, sent), "--"))
        .field("BlockIO", shown(pair(read, written), "--"))
        .field("PIDs", shown(int(&stats["pids_stats"]["current"]).to_string(), "--"))
        .build()
}

fn cpu_percent(stats: &Json) -> f64 {
    let (now, before) = (&stats["cpu_stats"], &stats["precpu_stats"]);
    let delta = |key: &dyn Fn(&Json) -> f64| key(now) - key(before);
    let own = delta(&|cpu| int(&cpu["cpu_usage"]["total_usage"]) as f64);
    let system = delta(&|cpu| int(&cpu["system_cpu_usage"]) as f64);
    let cpus = match int(&now["online_cpus"]) {
        0 => array(&now["cpu_usage"]["percpu_usage"]).len() as f64,
        cpus => cpus as f64,
    };
    if own > 0.0 && system > 0.0 { own / system * cpus * 100.0 } else { 0.0 }
}

/// Without the file cache that the kernel can take back at any time.
fn memory_used(memory: &Json) -> f64 {
    let usage = int(&memory["usage"]);
    for key in ["total_inactive_file", "inactive_file"] {
        if let Some(cache) = memory["stats"][key].as_i64()
            && cache < usage
        {
            return (usage - cache) as f64;
        }
    }
    usage as f64
}

fn network(networks: &Json) -> (f64, f64) {
    let all = networks.as_object();
    let sum = |key: &str| all.into_iter().flatten().map(|(_, one)| int(&one[key])).sum::<i64>() as f64;
    (sum("rx_bytes"), sum("tx_bytes"))
}

fn block(stats: &Json) -> (f64, f64) {
    let entries = array(&stats["io_service_bytes_recursive"]);
    let sum = |letter: char| {
        let own = entries.iter().filter(|entry| text(&entry["op"]).to_lowercase().starts_with(letter));
        own.map(|entry| int(&entry["value"])).sum::<i64>() as f64
    };
    (sum('r'), sum('w'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sums() {
        let stats = json!({
            "id": "0123456789abcdef", "name": "/c",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 10_485_760, "stats": {"inactive_file": 1_048_576}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}, "eth1": {"rx_bytes": 1, "tx_bytes": 0}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 5}, {"op": "write", "value": 7}]},
            "pids_stats": {"current": 3}
        });
        assert!((cpu_percent(&stats) - 40.0).abs() < 1e-9);
        let entry = Entry { container: "c".to_owned(), stats: Some(stats), valid: true };
        let json = row(&entry, true).to_json();
        for (key, value) in [
            ("ID", "0123456789ab"),
            ("Name", "c"),
            ("CPUPerc", "40.00%"),
            ("MemUsage", "2MiB / 10MiB"),
            ("MemPerc", "20.00%"),
            ("NetIO", "1kB / 2kB"),
            ("BlockIO", "5B / 7B"),
            ("PIDs", "3"),
        ] {
            assert_eq!(json[key], value, "{key}");
        }
        let unknown = row(&Entry { container: "c".to_owned(), stats: None, valid: false }, true).to_json();
        assert_eq!((&unknown["MemUsage"], &unknown["Name"]), (&json!("-- / --"), &json!("--")));
    }
}
