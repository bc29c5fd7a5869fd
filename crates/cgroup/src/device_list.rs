//! Device rules as v1's controller can hold them (cgroup-v1/devices.rst; security/device_cgroup.c), pure.
//!
//! A v1 group has no order of rules. It has one answer for all devices, and a list of exceptions to it: by type and
//! numbers, `*` for any. A rule that has the group's own answer takes its access off the exception of the very same
//! type and numbers, and does nothing to a wider one: `c 1:5 rw` denied after `c *:* rw` was allowed leaves the device
//! open. So the list that gives the meaning of the rules is looked for, and where there is none they are refused.

use std::collections::BTreeSet;

use crate::device_rule::{ALL, Kind, MKNOD, READ, Rule, WRITE, letters};
use crate::{CgroupError, Result};

/// The device types that v1 tells apart.
const KINDS: [Kind; 2] = [Kind::Block, Kind::Character];
/// What the kernel asks for: a node is made, or a device is opened, for both kinds of access at once too.
const QUESTIONS: [u8; 4] = [MKNOD, READ, WRITE, READ | WRITE];

/// Rules that a v1 group takes, one after another, to mean what `rules` do. The first is about all devices.
///
/// # Errors
/// When no list of v1's has that meaning.
pub(crate) fn plan(rules: &[Rule]) -> Result<Vec<Rule>> {
    let wanted: Vec<Place> = places(rules).into_iter().map(|at| Place { at, access: meaning(rules, at) }).collect();
    let listed = listed(rules);
    let difference = List::of(&listed).difference(&wanted);
    // The words of who wrote the rules where they do: they fit into what a group above has, and those below may take
    // what they were told of.
    if difference == Difference::None {
        return Ok(listed);
    }
    let found = exceptions(false, &wanted).or_else(|| exceptions(true, &wanted));
    if let Some(found) = found {
        return Ok(found);
    }
    // Docker's own configuration denies a device after it has allowed nodes of all to be made. A node of what cannot be
    // opened gives nothing to who has made it.
    if difference == Difference::Nodes {
        return Ok(listed);
    }
    let tolerated: Vec<Place> = wanted.iter().map(|place| place.with_nodes(&wanted)).collect();
    exceptions(false, &tolerated).ok_or_else(|| refusal(&tolerated))
}

/// Devices: one, or of `None` all whose number is named by no rule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct At {
    block: bool,
    major: Option<u32>,
    minor: Option<u32>,
}

impl At {
    /// Whether an exception with these numbers is about `other` too.
    fn covers(self, other: Self) -> bool {
        let number = |own: Option<u32>, other| own.is_none() || own == other;
        self.block == other.block && number(self.major, other.major) && number(self.minor, other.minor)
    }

    fn rule(self, allow: bool, access: u8) -> Rule {
        let kind = if self.block { Kind::Block } else { Kind::Character };
        Rule { allow, kind, major: self.major, minor: self.minor, access }
    }
}

/// What a rule is about, a type at a time.
fn split(rule: &Rule) -> impl Iterator<Item = At> + use<> {
    let Rule { kind: wanted, major, minor, .. } = *rule;
    let kinds = KINDS.into_iter().filter(move |kind| wanted == Kind::Any || wanted == *kind);
    kinds.map(move |kind| At { block: kind == Kind::Block, major, minor })
}

/// Devices with the access that they are to have.
#[derive(Clone, Copy)]
struct Place {
    at: At,
    access: u8,
}

impl Place {
    /// The same with the right to make nodes that wider places have, if what it is about cannot be opened.
    fn with_nodes(self, all: &[Self]) -> Self {
        let closed = self.access & (READ | WRITE) == 0;
        let nodes = |wider: &&Self| wider.access & MKNOD != 0 && wider.at.covers(self.at);
        Self { access: if closed && all.iter().any(|wider| nodes(&wider)) { MKNOD } else { self.access }, ..self }
    }
}

/// Every place at which the rules may mean something of its own: what they name, where two of them meet, and the rest.
fn places(rules: &[Rule]) -> BTreeSet<At> {
    let mut all: BTreeSet<At> = rules.iter().flat_map(split).collect();
    all.extend([false, true].map(|block| At { block, major: None, minor: None }));
    let majors: Vec<At> = all.iter().copied().filter(|at| at.minor.is_none()).collect();
    let minors: Vec<At> = all.iter().copied().filter(|at| at.major.is_none()).collect();
    for major in majors {
        let same = minors.iter().filter(|minor| minor.block == major.block);
        all.extend(same.map(|minor| At { minor: minor.minor, ..major }));
    }
    all
}

/// What the rules allow there: for each kind of access the last that speaks of it decides.
fn meaning(rules: &[Rule], at: At) -> u8 {
    let (mut allowed, mut open) = (0, ALL);
    for rule in rules.iter().rev().filter(|rule| split(rule).any(|own| own.covers(at))) {
        if rule.allow {
            allowed |= rule.access & open;
        }
        open &= !rule.access;
    }
    allowed
}

/// The rules without what a later one about all devices makes void; what none speaks of is denied.
fn listed(rules: &[Rule]) -> Vec<Rule> {
    let deny = Rule { allow: false, kind: Kind::Any, major: None, minor: None, access: ALL };
    match rules.iter().rposition(|rule| rule.is_of_all()) {
        Some(last) => rules[last..].to_vec(),
        None => [&[deny], rules].concat(),
    }
}

/// The list of a group that answers `rest` for all devices but its exceptions. `None` when there is none: an exception
/// is about all that its numbers cover, so a narrower place has at least what a wider one has.
fn exceptions(rest: bool, wanted: &[Place]) -> Option<Vec<Rule>> {
    let kept = |place: &Place| if rest { ALL & !place.access } else { place.access };
    if wanted.iter().any(|wide| wanted.iter().any(|at| wide.at.covers(at.at) && kept(wide) & !kept(at) != 0)) {
        return None;
    }
    let all = Rule { allow: rest, kind: Kind::Any, major: None, minor: None, access: ALL };
    // What a wider exception gives already needs none.
    let given = |place: &Place| {
        wanted.iter().any(|wide| wide.at != place.at && wide.at.covers(place.at) && kept(wide) == kept(place))
    };
    let own = wanted.iter().filter(|place| kept(place) != 0 && !given(place));
    Some(std::iter::once(all).chain(own.map(|place| place.at.rule(!rest, kept(place)))).collect())
}

/// Says what cannot be had: the first place that is denied what a wider one has.
fn refusal(wanted: &[Place]) -> CgroupError {
    let pairs = wanted.iter().flat_map(|wide| wanted.iter().map(move |at| (wide, at)));
    let mut lost = pairs.filter(|(wide, at)| wide.at.covers(at.at) && wide.access & !at.access != 0);
    let text = |at: At, access: u8| {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = if at.block { 'b' } else { 'c' };
        format!("{kind} {}:{} {}", number(at.major), number(at.minor), letters(access))
    };
    let (wide, at) = lost.next().map_or((String::new(), String::new()), |(wide, at)| {
        (text(wide.at, wide.access), text(at.at, wide.access & !at.access))
    });
    CgroupError::DeviceRules { wide, at }
}

/// How a list differs from what it is to mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    None,
    /// Nodes can be made of devices that cannot be opened.
    Nodes,
    Access,
}

/// What a v1 group holds.
struct List {
    /// What is answered for devices without an exception.
    rest: bool,
    exceptions: Vec<(At, u8)>,
}

impl List {
    /// What the kernel makes of rules that are written one by one.
    fn of(rules: &[Rule]) -> Self {
        let mut list = Self { rest: true, exceptions: Vec::new() };
        rules.iter().for_each(|rule| list.take(rule));
        list
    }

    fn take(&mut self, rule: &Rule) {
        if rule.is_of_all() {
            *self = Self { rest: rule.allow, exceptions: Vec::new() };
            return;
        }
        for at in split(rule) {
            let same = self.exceptions.iter_mut().find(|(own, _)| *own == at);
            match (same, rule.allow == self.rest) {
                (Some((_, access)), true) => *access &= !rule.access,
                (Some((_, access)), false) => *access |= rule.access,
                (None, true) => {}
                (None, false) => self.exceptions.push((at, rule.access)),
            }
        }
    }

    /// Whether `access` is allowed: an exception that allows must have all of it, and of those that deny none any.
    fn allows(&self, at: At, access: u8) -> bool {
        let mut own = self.exceptions.iter().filter(|(own, _)| own.covers(at));
        match self.rest {
            true => own.all(|(_, denied)| access & denied == 0),
            false => own.any(|(_, allowed)| access & !allowed == 0),
        }
    }

    fn difference(&self, wanted: &[Place]) -> Difference {
        let mut found = Difference::None;
        for place in wanted {
            for access in QUESTIONS {
                match (self.allows(place.at, access), access & !place.access == 0) {
                    (true, false) if access == MKNOD && place.access & (READ | WRITE) == 0 => found = Difference::Nodes,
                    (has, wants) if has != wants => return Difference::Access,
                    _ => {}
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_program::compile;
    use crate::device_program::tests::run;

    /// `+c 1:* rw` for a rule that allows; `+a` for one about all.
    fn rule(text: &str) -> Rule {
        let words: Vec<&str> = text[1..].split([' ', ':']).collect();
        let number = |at: usize| words.get(at).filter(|word| **word != "*").map(|word| word.parse().unwrap());
        let bit = |letter, bit| if words.get(3).is_none_or(|word| word.contains(letter)) { bit } else { 0 };
        let kind = match words[0] {
            "a" => Kind::Any,
            "b" => Kind::Block,
            _ => Kind::Character,
        };
        let access = bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE);
        Rule { allow: text.starts_with('+'), kind, major: number(1), minor: number(2), access }
    }

    fn rules(text: &str) -> Vec<Rule> {
        text.split(", ").map(rule).collect()
    }

    #[test]
    fn a_list_is_found_that_means_the_same() {
        let table = [
            // As it was written, without what is void.
            ("-a, +c 1:3 rwm, +c 136:* rw", "-a, +c 1:3 rwm, +c 136:* rw"),
            ("+a", "+a"),
            ("-a, +c 1:3 rw, +a, -b 8:* w", "+a, -b 8:* w"),
            ("-a, +c 1:3 rw, -c 1:3 w", "-a, +c 1:3 rw, -c 1:3 w"),
            // What no rule speaks of is denied.
            ("+c 1:3 r", "-a, +c 1:3 r"),
            // Docker's own: a node may be made of what cannot be opened.
            ("-a, +c *:* m, +c 1:3 rwm, -c 10:229 rwm", "-a, +c *:* m, +c 1:3 rwm, -c 10:229 rwm"),
            // A denial takes back what was allowed one by one.
            ("-a, +c 1:3 rw, +c 1:5 rw, -c 1:* w", "-a, +c 1:3 r, +c 1:5 r"),
            // One exception has to have all that is asked for at once.
            ("-a, +c *:* r, +c 1:5 w", "-a, +c *:* r, +c 1:5 rw"),
            ("-a, +c 1:* r, +c *:5 w", "-a, +c *:5 w, +c 1:* r, +c 1:5 rw"),
            // All but some, said without `a`, and for one type.
            ("-a, +c *:* rw, -c 1:5 w", "+a, -c *:* m, -c 1:5 wm, -b *:* rwm"),
            ("-a, +a *:* rw, +a *:* m, -c 1:5 w", "+a, -c 1:5 w"),
            ("-a, +c *:* rwm, +b 8:1 rwm, -b 8:* w", "-a, +c *:* rwm, +b 8:1 rm"),
        ];
        for (from, to) in table {
            assert_eq!(plan(&rules(from)).unwrap(), rules(to), "{from}");
        }
        for refused in ["-a, +c 1:* rw, -c 1:5 w", "+a, -c 1:* rwm, +c 1:5 rwm", "-a, +c 1:* rwm, +c 1:3 rw, -c 1:3 m"]
        {
            assert!(plan(&rules(refused)).is_err(), "{refused}");
        }
        let said = plan(&rules("-a, +c 1:* rw, -c 1:5 w")).unwrap_err().to_string();
        assert!(said.contains("`c 1:5 w`") && said.contains("`c 1:* rw`"), "{said}");
    }

    /// Numbers by chance (xorshift), the same each time.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }

        fn rule(&mut self, kinds: &[Kind]) -> Rule {
            let kind = kinds[usize::try_from(self.below(kinds.len() as u64)).unwrap()];
            let mut number = || Some(self.below(4)).filter(|n| *n < 2).map(|n| u32::try_from(n).unwrap());
            let (major, minor) = (number(), number());
            let access = [ALL, ALL, MKNOD, READ, READ | WRITE, WRITE][usize::try_from(self.below(6)).unwrap()];
            Rule { allow: self.below(2) == 0, kind, major, minor, access }
        }
    }

    /// What cgroup2's program answers.
    fn program_allows(program: &[wharf_sys::bpf::Instruction], at: At, access: u8) -> bool {
        // 77 is named by no rule.
        let number = |n: Option<u32>| n.unwrap_or(77);
        let word = u32::from(access) << 16 | if at.block { 1 } else { 2 };
        run(program, [word, number(at.major), number(at.minor)]) == 1
    }

    #[test]
    fn both_versions_mean_the_same_or_v1_refuses() {
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        let (mut same, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let count = chance.below(6) + 1;
            let rules: Vec<Rule> =
                (0..count).map(|_| chance.rule(&[Kind::Any, Kind::Block, Kind::Character])).collect();
            let Ok(found) = plan(&rules) else {
                refused += 1;
                continue;
            };
            same += 1;
            assert!(found[0].is_of_all());
            let (list, program) = (List::of(&found), compile(&rules));
            for (block, major, minor) in
                (0..18).map(|n| (n % 2 == 0, [None, Some(0), Some(1)][n / 2 % 3], [None, Some(0), Some(1)][n / 6]))
            {
                let at = At { block, major, minor };
                let open = program_allows(&program, at, READ) || program_allows(&program, at, WRITE);
                for access in QUESTIONS {
                    let (v1, v2) = (list.allows(at, access), program_allows(&program, at, access));
                    assert!(v1 == v2 || (v1 && access == MKNOD && !open), "{rules:?} {found:?} {at:?} {access}");
                }
            }
        }
        assert!(same > 5_000 && refused > 1_000, "{same} {refused}");
    }

    /// Every list that a group can hold about numbers 0 and others, tried one by one.
    #[test]
    fn what_is_refused_no_list_can_mean() {
        let ats = [(None, None), (Some(0), None), (None, Some(0)), (Some(0), Some(0))].map(|(major, minor)| At {
            block: false,
            major,
            minor,
        });
        let mut lists = Vec::new();
        for n in 0..2 * 8_u32.pow(4) {
            let access = |place: u32| u8::try_from(n / 2 / 8_u32.pow(place) % 8).unwrap();
            let exceptions = (0..4).map(|place| (ats[place as usize], access(place)));
            lists.push(List { rest: n % 2 == 0, exceptions: exceptions.collect() });
        }
        let mut chance = Chance(7);
        let mut refused = 0;
        while refused < 40 {
            let mut rules: Vec<Rule> = (0..4).map(|_| chance.rule(&[Kind::Character])).collect();
            for rule in &mut rules {
                rule.major = rule.major.filter(|n| *n == 0);
                rule.minor = rule.minor.filter(|n| *n == 0);
            }
            if plan(&rules).is_ok() {
                continue;
            }
            refused += 1;
            let wanted = ats.map(|at| Place { at, access: meaning(&rules, at) });
            for list in &lists {
                assert_eq!(list.difference(&wanted), Difference::Access, "{rules:?} {:?}", list.exceptions);
            }
        }
    }
}
