//! `wharf network reach`. Docker has no such command.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::visible::visible;

pub(crate) static REACH: Command = Command::new(
    "[OPTIONS] PORT[/PROTOCOL]|CONTAINER[:PORT[/PROTOCOL]]",
    "Say who reaches a published port or a container, and by whose rule not",
    Arity::Exactly(1),
    |app, matches| Box::pin(reach(app, matches)),
)
.long(
    "Say from where a published port of the host, or a port of a container, is reached: from this host, from other hosts, from \
     other containers; and where it is not, which rule of whose firewall drops what comes. The host's nftables are read, \
     with what iptables, ufw, firewalld and others have put there, and gone through as a packet would; nothing is sent.",
)
.flags(&[Flag::text("format", "Format the output: 'json', or plain text without it")]);

async fn reach(app: &App, matches: &Matches) -> Outcome<u8> {
    let format = matches.some("format").unwrap_or("text");
    if !matches!(format, "text" | "json") {
        return Err(format!("unknown format '{format}': give json, or leave it out").into());
    }
    app.needs_own_engine("network reach").await?;
    let request = app.client().await?.get("/networks/reach").query("of", matches.argument(0));
    let answer: Json = request.send().await?.json().await?;
    if format == "json" {
        app.say(&answer.to_string())?;
    } else {
        app.print(&plain(&answer))?;
    }
    Ok(0)
}

fn plain(answer: &Json) -> String {
    let mut output = String::new();
    for container in array(answer) {
        for port in array(&container["Ports"]) {
            let (number, protocol) = (int(&port["Port"]), text(&port["Protocol"]));
            let published = match text(&port["Published"]) {
                "" => String::new(),
                place => format!("{} -> ", place),
            };
            let name = visible(text(&container["Name"]).trim_start_matches('/'));
            let title = format!("{published}{name} port {number}/{protocol}, at {}", text(&port["Address"]));
            output.push_str(&title);
            output.push('\n');
            let ways = array(&port["Ways"]);
            let width = ways.iter().map(|way| text(&way["From"]).chars().count()).max().unwrap_or(0);
            let places = ways.iter().map(|way| text(&way["To"]).len()).max().unwrap_or(0);
            for way in ways {
                let why = text(&way["Why"]);
                let why = if why.is_empty() { String::new() } else { format!("  {}", visible(why)) };
                let (from, to) = (visible(text(&way["From"])), text(&way["To"]));
                let line = format!("  {:<7} {from:<width$}  {to:<places$}{why}", text(&way["Answer"]));
                output.push_str(line.trim_end());
                output.push('\n');
            }
            for note in texts(&port["Notes"]) {
                output.push_str(&format!("  note: {}\n", visible(note)));
            }
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_port() {
        let answer = serde_json::json!([{ "ID": "1", "Name": "web", "Ports": [{
            "Address": "172.17.0.2", "Port": 80, "Protocol": "tcp", "Published": "0.0.0.0:8080",
            "Ways": [
                { "From": "this host", "To": "127.0.0.1:8080", "Answer": "yes" },
                { "From": "other hosts, by eth0", "To": "192.0.2.1:8080", "Answer": "no", "Why": "dropped by x" },
            ],
            "Notes": ["nothing listens"],
        }] }]);
        let lines = [
            "0.0.0.0:8080 -> web port 80/tcp, at 172.17.0.2",
            "  yes     this host             127.0.0.1:8080",
            "  no      other hosts, by eth0  192.0.2.1:8080  dropped by x",
            "  note: nothing listens",
            "",
        ];
        assert_eq!(plain(&answer), lines.join("\n"));
    }
}
