//! Events, as `GET /events` tells them.

use serde_json::{Value, json};
use wharf_engine::event::Event;

/// One event. Before API 1.52 those of containers and images had the fields of the first days, too.
pub(crate) fn event(event: &Event, version: (u32, u32)) -> Value {
    let mut value = json!(event);
    if version < (1, 52) && matches!(event.kind.as_str(), "container" | "image") {
        value["status"] = event.action.as_str().into();
        value["id"] = event.actor.id.as_str().into();
        if let Some(image) = event.actor.attributes.get("image") {
            value["from"] = image.as_str().into();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_clients_get_the_old_fields() {
        let json = json!({
            "Type": "container", "Action": "start", "scope": "local", "time": 1, "timeNano": 2,
            "Actor": { "ID": "abc", "Attributes": { "image": "debian" } },
        });
        let made: Event = serde_json::from_value(json.clone()).unwrap();
        let old = event(&made, (1, 51));
        assert_eq!((&old["status"], &old["id"], &old["from"]), (&json!("start"), &json!("abc"), &json!("debian")));
        assert_eq!(event(&made, (1, 52)), json);
        let network = Event { kind: "network".into(), ..made };
        assert!(event(&network, (1, 51)).get("status").is_none());
    }
}
