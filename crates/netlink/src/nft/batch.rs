//! Changes of the ruleset.

use super::Family;
use super::expression::{self, Expression};
use super::set::{self, Element, Set};
use crate::message::{APPEND, CREATE, EXCLUSIVE, Messages};

/// `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h).
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

// enum nf_tables_msg_types
pub(super) const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
pub(super) const NEW_CHAIN: u16 = 3;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const NEW_RULE: u16 = 6;
pub(super) const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
pub(super) const NEW_ELEMENT: u16 = 12;
pub(super) const GET_ELEMENT: u16 = 13;
const DELETE_ELEMENT: u16 = 14;
pub(super) const GET_TABLE: u16 = 1;

// enum nft_table_attributes
pub(super) const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
// enum nft_chain_attributes
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
// enum nft_hook_attributes
pub(super) const HOOK_NUMBER: u16 = 1;
pub(super) const HOOK_PRIORITY: u16 = 2;
// enum nft_rule_attributes
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
// enum nft_list_attributes
pub(super) const LIST_ELEMENT: u16 = 1;
// enum nft_set_elem_list_attributes
pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;

/// Elements in one message: the list's length is 16 bits, and one takes at most about 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// `struct nfgenmsg`.
pub(super) const fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

pub(super) const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// A comment as libnftnl keeps it: a type, a length, a text with its NUL. Longer ones are cut.
pub(super) fn comment(text: &str) -> Vec<u8> {
    let mut cut = text.len().min(120);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    let text = &text.as_bytes()[..cut];
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], text, &[0]].concat()
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// What happens to a packet that a base chain does not decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Drop,
    Accept,
}

/// Where packets come into a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    /// `NF_INET_*` (linux/netfilter.h).
    pub(super) const fn number(self) -> u32 {
        self as u32
    }
}

/// A chain.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    pub name: &'a str,
    /// `filter`, `nat` or `route`, with its hook and priority; `None` for one that is jumped to.
    pub base: Option<(&'a str, Hook, i32)>,
}

/// Changes that are made together.
#[derive(Debug)]
pub struct Batch {
    messages: Messages,
    sets: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        let mut messages = Messages::default();
        messages.message(BATCH_BEGIN, 0, &header(0, SUBSYSTEM), "change the firewall".into(), |_| {});
        Self { messages, sets: 0 }
    }

    /// The messages with their end, unless there is none.
    pub(super) fn finish(mut self) -> Option<Messages> {
        if self.messages.len() < 2 {
            return None;
        }
        self.messages.acknowledge_last();
        self.messages.message(BATCH_END, 0, &header(0, SUBSYSTEM), "change the firewall".into(), |_| {});
        Some(self.messages)
    }

    fn add(&mut self, table: Table<'_>, what: u16, flags: u16, action: String, f: impl FnOnce(&mut Messages)) {
        self.messages.message(kind(what), flags, &header(table.family.number(), 0), action, f);
    }

    /// Makes a table; one that is there stays.
    pub fn add_table(&mut self, table: Table<'_>, text: &str) -> &mut Self {
        self.add(table, NEW_TABLE, CREATE, format!("make table `{}`", table.name), |m| {
            m.text(TABLE_NAME, table.name);
            m.attribute(TABLE_USERDATA, &comment(text));
        });
        self
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: Table<'_>) -> &mut Self {
        self.add(table, DELETE_TABLE, 0, format!("delete table `{}`", table.name), |m| m.text(TABLE_NAME, table.name));
        self
    }

    /// Makes a chain; a base chain accepts what its rules do not decide on.
    pub fn add_chain(&mut self, table: Table<'_>, chain: Chain<'_>) -> &mut Self {
        self.add(table, NEW_CHAIN, CREATE | EXCLUSIVE, format!("make chain `{}`", chain.name), |m| {
            m.text(CHAIN_TABLE, table.name);
            m.text(CHAIN_NAME, chain.name);
            if let Some((kind, hook, priority)) = chain.base {
                m.nested(CHAIN_HOOK, |m| {
                    m.be32(HOOK_NUMBER, hook.number());
                    m.be32(HOOK_PRIORITY, priority.cast_unsigned());
                });
                m.be32(CHAIN_POLICY, 1);
                m.text(CHAIN_TYPE, kind);
            }
        });
        self
    }

    /// Adds a rule at the end of a chain.
    pub fn add_rule(&mut self, table: Table<'_>, chain: &str, text: &str, rule: &[Expression<'_>]) -> &mut Self {
        self.rule(table, chain, APPEND, text, rule)
    }

    /// Adds a rule at the beginning of a chain.
    pub fn insert_rule(&mut self, table: Table<'_>, chain: &str, text: &str, rule: &[Expression<'_>]) -> &mut Self {
        self.rule(table, chain, 0, text, rule)
    }

    fn rule(&mut self, table: Table<'_>, chain: &str, place: u16, text: &str, rule: &[Expression<'_>]) -> &mut Self {
        self.add(table, NEW_RULE, CREATE | place, format!("add a rule to chain `{chain}`"), |m| {
            m.text(RULE_TABLE, table.name);
            m.text(RULE_CHAIN, chain);
            m.nested(RULE_EXPRESSIONS, |m| {
                for expression in rule {
                    m.nested(LIST_ELEMENT, |m| expression::write(m, expression));
                }
            });
            if !text.is_empty() {
                m.attribute(RULE_USERDATA, &comment(text));
            }
        });
        self
    }

    /// Deletes the rule that has this handle.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: u64) -> &mut Self {
        self.add(table, DELETE_RULE, 0, format!("delete a rule of chain `{chain}`"), |m| {
            m.text(RULE_TABLE, table.name);
            m.text(RULE_CHAIN, chain);
            m.be64(RULE_HANDLE, handle);
        });
        self
    }

    /// Makes a set or a map.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) -> &mut Self {
        self.sets += 1;
        let id = self.sets;
        self.add(table, NEW_SET, CREATE | EXCLUSIVE, format!("make set `{}`", set.name), |m| {
            set::write(m, table.name, set, id);
        });
        self
    }

    /// Adds elements to a set or map. With `exclusive` one that is there is an error.
    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element], exclusive: bool) -> &mut Self {
        let flags = CREATE | if exclusive { EXCLUSIVE } else { 0 };
        self.elements(table, set, elements, NEW_ELEMENT, flags, "add to")
    }

    /// Takes elements out of a set or map.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(table, set, elements, DELETE_ELEMENT, 0, "take from")
    }

    fn elements(
        &mut self,
        table: Table<'_>,
        set: &str,
        elements: &[Element],
        what: u16,
        flags: u16,
        verb: &str,
    ) -> &mut Self {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.add(table, what, flags, format!("{verb} set `{set}`"), |m| {
                m.text(ELEMENTS_TABLE, table.name);
                m.text(ELEMENTS_SET, set);
                m.nested(ELEMENTS_LIST, |m| {
                    for element in some {
                        m.nested(LIST_ELEMENT, |m| set::write_element(m, element));
                    }
                });
            });
        }
        self
    }

    /// Empties a set or map.
    pub fn flush_set(&mut self, table: Table<'_>, set: &str) -> &mut Self {
        self.add(table, DELETE_ELEMENT, 0, format!("empty set `{set}`"), |m| {
            m.text(ELEMENTS_TABLE, table.name);
            m.text(ELEMENTS_SET, set);
        });
        self
    }
}
