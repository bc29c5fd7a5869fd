//! What the ruleset has in it.

use rustix::io::Errno;

use super::batch::{
    CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, ELEMENTS_LIST, ELEMENTS_SET, ELEMENTS_TABLE,
    GET_CHAIN, GET_ELEMENT, GET_RULE, GET_TABLE, HOOK_NUMBER, HOOK_PRIORITY, Hook, NEW_CHAIN, NEW_ELEMENT, NEW_RULE,
    NEW_TABLE, Policy, RULE_CHAIN, RULE_HANDLE, RULE_TABLE, RULE_USERDATA, TABLE_NAME, Table, header, kind,
};
use super::expression::DATA_VALUE;
use super::set::{ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_KEY, ELEMENT_KEY_END, ELEMENT_USERDATA, INTERVAL_END};
use super::step::{self, Decision};
use super::{Connection, Family};
use crate::Result;
use crate::message::{self, DUMP, Messages};

/// `NFTA_TABLE_HANDLE`.
const TABLE_HANDLE: u16 = 4;
/// `NFT_SET_ELEM_CATCHALL`.
const CATCH_ALL: u32 = 2;

/// A chain that is there, of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainEntry {
    pub table: String,
    pub name: String,
    /// Of a base chain.
    pub hook: Option<Hook>,
    pub priority: i32,
    pub policy: Option<Policy>,
    /// `filter`, `nat` or `route`, of a base chain.
    pub kind: String,
}

/// A rule that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    pub handle: u64,
    pub comment: Option<String>,
}

/// An element that is there, as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElementEntry {
    pub key: Vec<u8>,
    pub key_end: Option<Vec<u8>>,
    pub ends_interval: bool,
    pub data: Option<Vec<u8>>,
    /// Of a map of verdicts.
    pub decision: Option<Decision>,
    /// For what no other element is about.
    pub is_catch_all: bool,
    pub comment: Option<String>,
}

impl Connection {
    /// Names of the tables of a family.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tables(&self, family: Family) -> Result<Vec<String>> {
        let mut request = Messages::default();
        request.message(kind(GET_TABLE), DUMP, &header(family.number(), 0), "list tables".into(), |_| {});
        self.socket.ask(&request, |answer| {
            let body = body(answer, NEW_TABLE)?;
            message::find(body, TABLE_NAME).map(message::text)
        })
    }

    /// The number of a table, which no other one has had; `None` when there is none of that name.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn table_handle(&self, table: Table<'_>) -> Result<Option<u64>> {
        let mut request = Messages::default();
        let action = format!("look at table `{}`", table.name);
        request.message(kind(GET_TABLE), 0, &header(table.family.number(), 0), action, |m| {
            m.text(TABLE_NAME, table.name);
        });
        let found = self.socket.ask(&request, |answer| {
            let handle = message::find(body(answer, NEW_TABLE)?, TABLE_HANDLE)?;
            handle.try_into().ok().map(u64::from_be_bytes)
        });
        Ok(none_is_empty(found)?.pop())
    }

    /// The chains of a family.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn chains(&self, family: Family) -> Result<Vec<ChainEntry>> {
        let mut request = Messages::default();
        request.message(kind(GET_CHAIN), DUMP, &header(family.number(), 0), "list chains".into(), |_| {});
        self.socket.ask(&request, |answer| chain(body(answer, NEW_CHAIN)?))
    }

    /// The rules of a chain, in order; none when there is no such chain.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&self, table: Table<'_>, chain: &str) -> Result<Vec<RuleEntry>> {
        let mut request = Messages::default();
        let action = format!("list the rules of chain `{chain}`");
        request.message(kind(GET_RULE), DUMP, &header(table.family.number(), 0), action, |m| {
            m.text(RULE_TABLE, table.name);
            m.text(RULE_CHAIN, chain);
        });
        let rules = self.socket.ask(&request, |answer| {
            let body = body(answer, NEW_RULE)?;
            let handle = message::find(body, RULE_HANDLE)?.try_into().ok().map(u64::from_be_bytes)?;
            Some(RuleEntry { handle, comment: message::find(body, RULE_USERDATA).and_then(comment_of) })
        });
        none_is_empty(rules)
    }

    /// The elements of a set or map; none when there is no such set.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn elements(&self, table: Table<'_>, set: &str) -> Result<Vec<ElementEntry>> {
        let mut request = Messages::default();
        let action = format!("list set `{set}`");
        request.message(kind(GET_ELEMENT), DUMP, &header(table.family.number(), 0), action, |m| {
            m.text(ELEMENTS_TABLE, table.name);
            m.text(ELEMENTS_SET, set);
        });
        let lists = self.socket.ask(&request, |answer| {
            let list = message::find(body(answer, NEW_ELEMENT)?, ELEMENTS_LIST)?;
            Some(message::attributes(list).map(|attribute| element(attribute.value)).collect::<Vec<_>>())
        });
        Ok(none_is_empty(lists)?.into_iter().flatten().collect())
    }
}

fn none_is_empty<T>(listed: Result<Vec<T>>) -> Result<Vec<T>> {
    match listed {
        Err(error) if error.errno == Errno::NOENT => Ok(Vec::new()),
        listed => listed,
    }
}

pub(super) fn body<'a>(answer: &message::Received<'a>, wanted: u16) -> Option<&'a [u8]> {
    if answer.kind == kind(wanted) { answer.payload.get(4..) } else { None }
}

pub(super) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn chain(body: &[u8]) -> Option<ChainEntry> {
    let hook = message::find(body, CHAIN_HOOK);
    let number = hook.and_then(|hook| message::find(hook, HOOK_NUMBER)).and_then(be32);
    let priority = hook.and_then(|hook| message::find(hook, HOOK_PRIORITY)).and_then(be32);
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    Some(ChainEntry {
        table: message::find(body, CHAIN_TABLE).map(message::text)?,
        name: message::find(body, CHAIN_NAME).map(message::text)?,
        hook: number.and_then(|number| hooks.into_iter().find(|hook| hook.number() == number)),
        priority: priority.unwrap_or(0).cast_signed(),
        policy: message::find(body, CHAIN_POLICY)
            .and_then(be32)
            .map(|policy| if policy == 0 { Policy::Drop } else { Policy::Accept }),
        kind: message::find(body, CHAIN_TYPE).map(message::text).unwrap_or_default(),
    })
}

fn value(bytes: &[u8], kind: u16) -> Option<Vec<u8>> {
    message::find(message::find(bytes, kind)?, DATA_VALUE).map(<[u8]>::to_vec)
}

fn element(bytes: &[u8]) -> ElementEntry {
    let flags = message::find(bytes, ELEMENT_FLAGS).and_then(be32).unwrap_or(0);
    ElementEntry {
        key: value(bytes, ELEMENT_KEY).unwrap_or_default(),
        key_end: value(bytes, ELEMENT_KEY_END),
        ends_interval: flags & INTERVAL_END != 0,
        data: value(bytes, ELEMENT_DATA),
        decision: message::find(bytes, ELEMENT_DATA).and_then(step::decision),
        is_catch_all: flags & CATCH_ALL != 0,
        comment: message::find(bytes, ELEMENT_USERDATA).and_then(comment_of),
    }
}

/// The comment in what libnftnl keeps beside an object: a list of types, lengths and values.
pub(super) fn comment_of(mut bytes: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = bytes {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(message::text(value));
        }
        bytes = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::batch::comment;

    #[test]
    fn a_comment_is_read_as_it_was_written() {
        assert_eq!(comment_of(&comment("web 80")), Some("web 80".into()));
        assert_eq!(comment_of(&[3, 1, 9, 0, 2, b'x', 0]), Some("x".into()));
        assert_eq!(comment_of(&[0, 9, b'x']), None);
        assert_eq!(comment_of(&[]), None);
        assert_eq!(comment(&"é".repeat(100)).len(), 123);
    }
}
