//! The engine's events, with the attributes that Docker gives them.

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::record::{Container, NEVER};

impl Engine {
    /// Tells of a container.
    pub(crate) fn tell(&self, record: &Container, action: &str) {
        self.tell_with(record, action, &[]);
    }

    /// Tells of a container, with more attributes.
    pub(crate) fn tell_with(&self, record: &Container, action: &str, more: &[(&str, &str)]) {
        self.events().publish("container", action, &record.id, attributes(record, more));
    }

    /// As [`Self::tell_with`], of what may have happened while no daemon was there: `happened` is when, in RFC 3339,
    /// or [`NEVER`] where nobody knows.
    pub(crate) fn tell_late(&self, record: &Container, action: &str, more: &[(&str, &str)], happened: &str) {
        let happened = Some(happened).filter(|text| *text != NEVER).and_then(|text| text.parse().ok());
        self.events().publish_late("container", action, &record.id, attributes(record, more), happened);
    }

    /// Whether a daemon before this one has told that it ended (`die`) or began (`start`) then, in RFC 3339.
    pub(crate) fn was_told(&self, record: &Container, action: &str, happened: &str) -> bool {
        let next = if action == "die" { "start" } else { "die" };
        happened.parse().is_ok_and(|happened| self.events().was_told(action, next, &record.id, happened))
    }

    /// As [`Self::tell_with`], of what is not kept for those who ask later.
    pub(crate) fn tell_now(&self, record: &Container, action: &str, more: &[(&str, &str)]) {
        self.events().publish_live("container", action, &record.id, attributes(record, more));
    }

    /// Tells of something else: an image, a network, a volume.
    pub fn tell_of(&self, kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.events().publish(kind, action, id, attributes);
    }
}

fn attributes(record: &Container, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut attributes: BTreeMap<String, String> = record.config.labels.clone().unwrap_or_default();
    attributes.insert("image".into(), record.config.image.clone());
    attributes.insert("name".into(), record.name.clone());
    for (key, value) in more {
        attributes.insert((*key).into(), (*value).into());
    }
    attributes
}
