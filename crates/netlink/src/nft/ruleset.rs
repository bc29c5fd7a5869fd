//! All rules of the host, whoever has made them.

use super::batch::{
    GET_CHAIN, GET_RULE, GET_TABLE, NEW_CHAIN, NEW_RULE, NEW_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_TABLE, RULE_USERDATA,
    TABLE_NAME, Table, header, kind,
};
use super::dump::{be32, body, chain, comment_of};
use super::step::{self, Step};
use super::{ChainEntry, Connection, ElementEntry, Family};
use crate::Result;
use crate::message::{self, DUMP, Messages, Received, attributes, find};

const NEW_SET: u16 = 9;
const GET_SET: u16 = 10;
// enum nft_rule_attributes, enum nft_set_attributes, enum nft_set_desc_attributes.
const RULE_EXPRESSIONS: u16 = 4;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_LENGTH: u16 = 5;
const SET_DESCRIPTION: u16 = 9;
const DESCRIPTION_CONCATENATION: u16 = 2;
const FIELD_LENGTH: u16 = 1;

/// What the host's nftables has for packets of IP.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub chains: Vec<(Family, ChainEntry)>,
    /// In each chain's order.
    pub rules: Vec<StoredRule>,
    pub sets: Vec<StoredSet>,
    /// Tables of other families: of frames, bridges, devices.
    pub others: Vec<String>,
}

/// A rule that is there, with all of it.
#[derive(Clone, Debug)]
pub struct StoredRule {
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    pub steps: Vec<Step>,
}

/// A set or a map that is there, with all that is in it.
#[derive(Clone, Debug)]
pub struct StoredSet {
    pub family: Family,
    pub table: String,
    pub name: String,
    /// Written in a rule, and without a name of its own.
    pub is_anonymous: bool,
    pub is_interval: bool,
    pub key_length: usize,
    /// Lengths of what its keys consist of.
    pub fields: Vec<usize>,
    pub elements: Vec<ElementEntry>,
}

fn family(answer: &Received<'_>) -> Option<Family> {
    let number = *answer.payload.first()?;
    [Family::Inet, Family::Ip, Family::Ip6].into_iter().find(|family| family.number() == number)
}

/// Of all families.
fn everything(what: u16) -> Messages {
    let mut request = Messages::default();
    request.message(kind(what), DUMP, &header(0, 0), "list the ruleset".into(), |_| {});
    request
}

impl Connection {
    /// Reads all rules, chains and sets.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ruleset(&self) -> Result<Ruleset> {
        let tables = self.socket.ask(&everything(GET_TABLE), |answer| {
            let name = message::text(find(body(answer, NEW_TABLE)?, TABLE_NAME)?);
            Some((family(answer).is_none(), name))
        })?;
        let chains = self.socket.ask(&everything(GET_CHAIN), |answer| {
            let family = family(answer)?;
            Some((family, chain(body(answer, NEW_CHAIN)?)?))
        })?;
        let rules = self.socket.ask(&everything(GET_RULE), |answer| {
            let family = family(answer)?;
            let body = body(answer, NEW_RULE)?;
            Some(StoredRule {
                family,
                table: message::text(find(body, RULE_TABLE)?),
                chain: message::text(find(body, RULE_CHAIN)?),
                handle: find(body, RULE_HANDLE)?.try_into().ok().map(u64::from_be_bytes)?,
                comment: find(body, RULE_USERDATA).and_then(comment_of),
                steps: find(body, RULE_EXPRESSIONS).map(step::steps).unwrap_or_default(),
            })
        })?;
        let mut sets = self.socket.ask(&everything(GET_SET), |answer| {
            let family = family(answer)?;
            set(family, body(answer, NEW_SET)?)
        })?;
        for set in &mut sets {
            set.elements = self.elements(Table { family: set.family, name: &set.table }, &set.name)?;
        }
        let others = tables.into_iter().filter(|(other, _)| *other).map(|(_, name)| name).collect();
        Ok(Ruleset { chains, rules, sets, others })
    }
}

fn set(family: Family, body: &[u8]) -> Option<StoredSet> {
    let number = |value: &[u8]| be32(value).and_then(|number| usize::try_from(number).ok());
    let flags = find(body, SET_FLAGS).and_then(be32).unwrap_or(0);
    let key_length = find(body, SET_KEY_LENGTH).and_then(number)?;
    let described = find(body, SET_DESCRIPTION).and_then(|all| find(all, DESCRIPTION_CONCATENATION));
    let fields: Vec<usize> = described
        .into_iter()
        .flat_map(attributes)
        .filter_map(|field| find(field.value, FIELD_LENGTH).and_then(number))
        .collect();
    Some(StoredSet {
        family,
        table: message::text(find(body, SET_TABLE)?),
        name: message::text(find(body, SET_NAME)?),
        // NFT_SET_ANONYMOUS, NFT_SET_INTERVAL.
        is_anonymous: flags & 1 != 0,
        is_interval: flags & 4 != 0,
        key_length,
        fields: if fields.is_empty() { vec![key_length] } else { fields },
        elements: Vec::new(),
    })
}
