//! What the cache has, and what of it goes (`Control.DiskUsage`, `Control.Prune`).
//!
//! Sources: moby/buildkit `cache/manager.go` (`calculateKeepBytes`, `adaptUsageInfo`); containerd `pkg/filters`.

use std::collections::HashMap;

use regex::Regex;
use wharf_build::{BuildError, Builder, CacheRecord};

use crate::BuildKit;
use crate::control::blocking;
use crate::grpc::{Sender, Status};
use crate::proto::Timestamp;
use crate::proto::control::{DiskUsageRequest, DiskUsageResponse, PruneRequest, UsageRecord};

/// What is known of a record.
const FIELDS: &[&str] = &["id", "type", "description", "inuse", "mutable", "immutable", "shared", "private", "parents"];

/// One condition.
enum Condition {
    Present(String),
    Is(String, String),
    IsNot(String, String),
    Matches(String, Regex),
}

/// Conditions of which one list has to hold.
struct Filter(Vec<Vec<Condition>>);

impl Filter {
    /// `type==regular,description~=RUN` each; commas in quotes are part of a value.
    ///
    /// # Errors
    /// For a field that is not known, and what cannot be read.
    fn parse(texts: &[String]) -> Result<Self, Status> {
        let lists = texts.iter().filter(|text| !text.trim().is_empty());
        let list = |text: &String| pieces(text).iter().map(|piece| condition(piece)).collect();
        lists.map(list).collect::<Result<_, _>>().map(Self)
    }

    fn holds(&self, record: &UsageRecord) -> bool {
        let value = |field: &str| match field {
            "id" => Some(record.id.as_str()),
            "type" => Some(record.record_type.as_str()),
            "description" => Some(record.description.as_str()),
            // Nothing that a build uses now is listed, and what is made never changes.
            "immutable" | "private" => Some(""),
            _ => None,
        };
        let one = |condition: &Condition| match condition {
            Condition::Present(field) => value(field).is_some(),
            Condition::Is(field, wanted) => value(field) == Some(wanted),
            Condition::IsNot(field, other) => value(field) != Some(other),
            Condition::Matches(field, pattern) => value(field).is_some_and(|value| pattern.is_match(value)),
        };
        self.0.is_empty() || self.0.iter().any(|list| list.iter().all(one))
    }
}

fn pieces(text: &str) -> Vec<String> {
    let (mut all, mut quoted) = (vec![String::new()], false);
    for letter in text.chars() {
        match (letter, all.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => all.push(String::new()),
            (letter, Some(last)) => last.push(letter),
            (_, None) => {}
        }
    }
    all
}

fn condition(piece: &str) -> Result<Condition, Status> {
    let end = piece.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(piece.len());
    let (field, rest) = piece.split_at(end);
    if !FIELDS.contains(&field) {
        let known = FIELDS.join(", ");
        return Err(Status::invalid(format!("the filter {piece:?} is of no known field: there are {known}")));
    }
    let (field, bad) = (field.to_owned(), |why: &str| Status::invalid(format!("invalid filter {piece:?}: {why}")));
    Ok(match (rest.get(..2).unwrap_or(rest), rest.get(2..).unwrap_or_default()) {
        ("", _) => Condition::Present(field),
        ("==", value) => Condition::Is(field, value.to_owned()),
        ("!=", value) => Condition::IsNot(field, value.to_owned()),
        ("~=", value) => Condition::Matches(field, Regex::new(value).map_err(|e| bad(&e.to_string()))?),
        _ => return Err(bad("an operator is one of ==, != and ~=")),
    })
}

/// So many bytes may stay of `total`; nothing, if all is to go.
fn keeps(total: u64, free: u64, request: &PruneRequest) -> Option<u64> {
    let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
    let (reserved, most, wanted) =
        (bytes(request.reserved_space), bytes(request.max_used_space), bytes(request.min_free_space));
    if reserved == 0 && most == 0 && wanted == 0 {
        return None;
    }
    let excess = wanted.saturating_sub(free);
    let within = match (most, excess) {
        (most, 0) => most,
        (0, excess) => total.saturating_sub(excess),
        (most, excess) => most.min(total.saturating_sub(excess)),
    };
    // Where only room is wanted that is there, nothing has to go.
    let within = if most == 0 && reserved == 0 && excess == 0 { total } else { within };
    Some(within.max(reserved))
}

fn failed(error: &BuildError) -> Status {
    crate::failure::status(error)
}

impl BuildKit {
    pub(crate) async fn disk_usage(&self, request: DiskUsageRequest) -> Result<DiskUsageResponse, Status> {
        let filter = Filter::parse(&request.filter)?;
        let builder = self.inner.builder.clone();
        let records = blocking(move || records(&builder)).await?;
        let record = records.into_iter().map(|(id, record)| usage(id, &record));
        Ok(DiskUsageResponse { record: record.filter(|record| filter.holds(record)).collect() })
    }

    pub(crate) async fn prune(&self, request: PruneRequest, sender: Sender) -> Result<(), Status> {
        let filter = Filter::parse(&request.filter)?;
        let builder = self.inner.builder.clone();
        let pruned = blocking(move || {
            let mut records = match request.all {
                true => records(&builder)?,
                false => builder.records().map_err(|e| failed(&e))?,
            };
            records.sort_by_key(|(_, record)| std::cmp::Reverse(record.last_used));
            let total = records.iter().map(|(_, record)| record.size).sum();
            let room = rustix::fs::statvfs(builder.store().root());
            let room = room.map_err(|e| Status::unavailable(format!("the room of the disk is not known: {e}")))?;
            let keeps = keeps(total, room.f_bavail.saturating_mul(room.f_frsize), &request);
            let mut left = keeps.unwrap_or(0);
            let now = Timestamp::now().seconds;
            let mut going = HashMap::new();
            for (id, record) in records {
                let young = now - record.last_used < request.keep_duration / 1_000_000_000;
                // Where nothing is kept, neither is what takes no space.
                let fits = keeps.is_some() && left >= record.size;
                let is_meant = filter.holds(&usage(id.clone(), &record));
                if young || fits || !is_meant {
                    left = left.saturating_sub(record.size);
                } else {
                    going.insert(id, record);
                }
            }
            let pruned = builder.prune(&|id, _| going.contains_key(id), request.all).map_err(|e| failed(&e))?;
            Ok(pruned.ids.into_iter().filter_map(|id| going.remove(&id).map(|record| (id, record))).collect::<Vec<_>>())
        })
        .await?;
        for (id, record) in pruned {
            sender.send(&usage(id, &record)).await;
        }
        Ok(())
    }
}

/// Steps, contexts and cache mounts.
fn records(builder: &Builder) -> Result<Vec<(String, CacheRecord)>, Status> {
    let mut all = builder.records().map_err(|e| failed(&e))?;
    all.extend(builder.mounts(None).map_err(|e| failed(&e))?);
    Ok(all)
}

fn usage(id: String, record: &CacheRecord) -> UsageRecord {
    let record_type = CacheRecord::kind(&id).into();
    UsageRecord {
        id,
        size: i64::try_from(record.size).unwrap_or(i64::MAX),
        created_at: Some(Timestamp::seconds(record.created)),
        last_used_at: Some(Timestamp::seconds(record.last_used)),
        usage_count: i64::try_from(record.uses).unwrap_or(i64::MAX),
        description: record.description.clone(),
        record_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_choose_records() {
        let record = UsageRecord {
            id: "sha256:ab".into(),
            description: "RUN echo, and so on".into(),
            record_type: "regular".into(),
            ..UsageRecord::default()
        };
        let holds = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filter::parse(&texts).map(|filter| filter.holds(&record))
        };
        for yes in [&[][..], &[""], &["type==regular"], &["type!=x,immutable"], &["id==x", "description~=^RUN"]] {
            assert!(holds(yes).unwrap(), "{yes:?}");
        }
        assert!(holds(&["description==\"RUN echo, and so on\""]).unwrap());
        for no in [&["type==source.local"][..], &["inuse"], &["type==regular,mutable"]] {
            assert!(!holds(no).unwrap(), "{no:?}");
        }
        for bad in ["size==1", "type=x", "id~=["] {
            assert!(holds(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_stays_is_told_by_three_numbers() {
        let of = |reserved_space, max_used_space, min_free_space| {
            keeps(100, 50, &PruneRequest { reserved_space, max_used_space, min_free_space, ..PruneRequest::default() })
        };
        assert_eq!(of(0, 0, 0), None);
        assert_eq!((of(10, 0, 0), of(0, 60, 0)), (Some(10), Some(60)));
        // 20 bytes too few are free.
        assert_eq!((of(0, 0, 70), of(0, 60, 70), of(90, 60, 70)), (Some(80), Some(60), Some(90)));
        // There is room.
        assert_eq!(of(0, 0, 40), Some(100));
    }
}
