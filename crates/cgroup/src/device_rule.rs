//! A rule of who may use which devices (runtime-spec, config-linux, "Allowed Device list").
//!
//! The rules are applied in the order listed: for each kind of access the last one that speaks of it decides. What no
//! rule speaks of is denied.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::{CgroupError, Result};

/// linux/bpf.h, `BPF_DEVCG_ACC_*`.
pub(crate) const MKNOD: u8 = 1;
pub(crate) const READ: u8 = 2;
pub(crate) const WRITE: u8 = 4;
pub(crate) const ALL: u8 = MKNOD | READ | WRITE;

/// A rule as the kernel's two versions both need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) kind: Kind,
    /// `None` is any.
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    /// A set of [`MKNOD`], [`READ`] and [`WRITE`].
    pub(crate) access: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Any,
    Block,
    Character,
}

impl Rule {
    /// # Errors
    /// For a number that is no device's, or an access that there is not.
    pub(crate) fn read(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let kind = match rule.typ().unwrap_or(LinuxDeviceType::A) {
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Character,
            LinuxDeviceType::A => Kind::Any,
            LinuxDeviceType::P => return Err(CgroupError::Unsupported("a device rule for a FIFO, which is no device")),
        };
        let number = |number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number)
                .map(Some)
                .map_err(|_| CgroupError::Unsupported("a device rule with a number that no device has")),
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => return Err(CgroupError::Unsupported("a device rule whose access is not made of r, w and m")),
            };
        }
        let access = if access == 0 { ALL } else { access };
        Ok(Self { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
    }

    /// Whether it speaks of every device and all that can be done with it.
    pub(crate) fn is_of_all(self) -> bool {
        self.kind == Kind::Any && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// Its access in letters.
    pub(crate) fn letters(self) -> String {
        letters(self.access)
    }
}

/// A set of kinds of access in letters.
pub(crate) fn letters(access: u8) -> String {
    [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')].iter().filter(|(bit, _)| access & bit != 0).map(|(_, c)| c).collect()
}

/// Whether the rules forbid nothing.
pub(crate) fn allows_all(rules: &[Rule]) -> bool {
    let last = rules.iter().rposition(|rule| rule.allow && rule.is_of_all());
    last.is_some_and(|last| rules[last..].iter().all(|rule| rule.allow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for bad in [
            r#"{"allow":true,"access":"x"}"#,
            r#"{"allow":true,"type":"c","major":-2}"#,
            r#"{"allow":true,"type":"c","minor":4294967296}"#,
            r#"{"allow":true,"type":"p"}"#,
        ] {
            let rule: LinuxDeviceCgroup = serde_json::from_str(bad).unwrap();
            assert!(Rule::read(&rule).is_err(), "{bad}");
        }
    }
}
