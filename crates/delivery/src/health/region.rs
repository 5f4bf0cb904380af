//! The regions of a provider: one for each country (SMS) or mail domain that it was asked to send
//! to. Their number is bounded, because users choose the domains.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use watchword_core::{Recipient, Timestamp};

use super::gauge::Gauge;

/// The most regions kept for each provider: more than there are countries.
pub(super) const MOST_REGIONS: usize = 1_024;
/// This many different witnesses turn failures of single recipients or regions into a failure of
/// the whole.
pub(super) const WITNESSES: usize = 3;

/// The destination of a recipient, as far as a provider may refuse it as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Region {
    /// A country (ISO 3166).
    Country(Box<str>),
    /// A number to which the numbering plans assign no country.
    NoCountry,
    /// A mail domain, in lower case.
    Domain(Box<str>),
}

impl Region {
    pub(crate) fn of(recipient: &Recipient) -> Self {
        match recipient {
            Recipient::Sms(_) => recipient
                .country()
                .map_or(Self::NoCountry, |country| Self::Country(country.into())),
            Recipient::Email(address) => Self::Domain(address.domain().to_ascii_lowercase().into()),
        }
    }

    /// Returns the country, or an empty string. Only the country is used in metric labels.
    pub(crate) fn country(&self) -> &str {
        match self {
            Self::Country(country) => country,
            Self::NoCountry | Self::Domain(_) => "",
        }
    }

    pub(super) const fn is_domain(&self) -> bool {
        matches!(self, Self::Domain(_))
    }

    pub(super) fn witness(&self) -> u64 {
        witness(self)
    }
}

/// Returns a hash that identifies a recipient or region in a [`Streak`].
pub(crate) fn witness(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Failures since the last acceptance, and how many different witnesses (recipients of a region,
/// regions of a provider) reported one.
#[derive(Debug, Clone, Default)]
pub(super) struct Streak {
    length: u32,
    witnesses: Vec<u64>,
}

impl Streak {
    /// Adds a failure. Returns whether enough different witnesses have reported one.
    pub(super) fn add(&mut self, witness: u64) -> bool {
        self.length = self.length.saturating_add(1);
        if self.witnesses.len() < WITNESSES && !self.witnesses.contains(&witness) {
            self.witnesses.push(witness);
        }
        self.witnesses.len() >= WITNESSES
    }

    pub(super) const fn length(&self) -> u32 {
        self.length
    }

    /// Returns whether a witness other than `witness` reported a failure.
    pub(super) fn has_other(&self, witness: u64) -> bool {
        self.witnesses.iter().any(|seen| *seen != witness)
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.witnesses.clear();
    }
}

/// Health of one region.
#[derive(Debug)]
pub(super) struct RegionHealth {
    pub(super) gauge: Gauge,
    /// Whether the provider ever accepted a message for the region.
    pub(super) has_worked: bool,
    /// Recipients for which the provider asked to wait.
    pub(super) waits: Streak,
    /// Whether a requested wait started since the last acceptance.
    pub(super) has_waited: bool,
    used: u64,
}

/// The regions of one provider.
#[derive(Debug, Default)]
pub(super) struct Regions {
    known: HashMap<Region, RegionHealth>,
    worked: usize,
    uses: u64,
}

impl Regions {
    pub(super) fn get(&self, region: &Region) -> Option<&RegionHealth> {
        self.known.get(region)
    }

    pub(super) fn get_mut(&mut self, region: &Region) -> Option<&mut RegionHealth> {
        self.known.get_mut(region)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Region, &RegionHealth)> {
        self.known.iter()
    }

    /// Returns whether the provider accepted a message for any region.
    pub(super) const fn any_worked(&self) -> bool {
        self.worked > 0
    }

    /// Returns whether the provider accepted a message for a region other than `region`.
    pub(super) fn any_other_worked(&self, region: &Region) -> bool {
        let this_worked = self.get(region).is_some_and(|region| region.has_worked);
        self.worked > usize::from(this_worked)
    }

    /// Returns the state of `region`, creating it if it is unknown. A new region replaces the least
    /// recently used one, preferring regions that never worked.
    pub(super) fn entry(&mut self, region: &Region, now: Timestamp) -> &mut RegionHealth {
        self.uses += 1;
        if self.known.len() >= MOST_REGIONS && !self.known.contains_key(region) {
            self.evict();
        }
        let entry = self
            .known
            .entry(region.clone())
            .or_insert_with(|| RegionHealth {
                gauge: Gauge::new(now),
                has_worked: false,
                waits: Streak::default(),
                has_waited: false,
                used: 0,
            });
        entry.used = self.uses;
        entry
    }

    /// Records that the provider accepted a message for `region`.
    pub(super) fn mark_worked(&mut self, region: &Region) {
        if let Some(entry) = self.known.get_mut(region)
            && !entry.has_worked
        {
            entry.has_worked = true;
            self.worked += 1;
        }
    }

    fn evict(&mut self) {
        let oldest = self
            .known
            .iter()
            .min_by_key(|(_, entry)| (entry.has_worked, entry.used))
            .map(|(region, _)| region.clone());
        if let Some(region) = oldest
            && let Some(entry) = self.known.remove(&region)
            && entry.has_worked
        {
            self.worked -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use watchword_core::Channel;

    use super::*;

    fn domain(name: &str) -> Region {
        Region::Domain(name.into())
    }

    #[test]
    fn a_region_is_a_country_or_a_domain_in_lower_case() {
        let of = |channel, text| Region::of(&Recipient::parse(channel, text).unwrap());
        let german = of(Channel::Sms, "+4915112345678");
        assert_eq!(german, Region::Country("DE".into()));
        assert_eq!(german.country(), "DE");
        let mail = of(Channel::Email, "jane@Mail.EXAMPLE.org");
        assert_eq!(mail, domain("mail.example.org"));
        assert_eq!(mail.country(), "");
    }

    #[test]
    fn the_number_of_regions_is_bounded_and_those_that_worked_stay() {
        let now = Timestamp::from_millis(0);
        let mut regions = Regions::default();
        for name in ["example.org", "example.com"] {
            regions.entry(&domain(name), now);
            regions.mark_worked(&domain(name));
        }
        for number in 0..10_000 {
            regions.entry(&domain(&format!("d{number}.example.net")), now);
        }
        assert_eq!(regions.iter().count(), MOST_REGIONS);
        assert!(regions.get(&domain("example.org")).is_some());
        assert!(regions.get(&domain("d0.example.net")).is_none());
        assert!(regions.get(&domain("d9999.example.net")).is_some());
        // The number of regions that worked is bounded too; the most recently used ones stay.
        for number in 0..10_000 {
            regions.entry(&domain("example.org"), now);
            let name = domain(&format!("w{number}.example.net"));
            regions.entry(&name, now);
            regions.mark_worked(&name);
        }
        assert_eq!(regions.iter().count(), MOST_REGIONS);
        assert_eq!(
            regions.worked,
            regions.iter().filter(|(_, it)| it.has_worked).count()
        );
        assert!(regions.get(&domain("example.org")).is_some());
        assert!(regions.get(&domain("example.com")).is_none());
    }

    #[test]
    fn one_witness_is_one_however_often_it_comes() {
        let mut streak = Streak::default();
        assert!((0..100).all(|_| !streak.add(1)));
        assert!(!streak.add(2));
        assert!(streak.add(3));
        assert_eq!(streak.length(), 102);
        streak.clear();
        assert!(!streak.add(3));
    }
}
