//! Metric handles per country, created when a country first occurs. Later lookups take no lock and
//! no hash. Anything but two capital letters uses the cell labeled `none`.

use std::sync::OnceLock;

/// Cells for all pairs of two capital letters, and one for `none`.
const CELLS: usize = 26 * 26 + 1;

/// The label for an email address, or for a number without a country.
const NONE: &str = "none";

/// A value of `T` for each country.
#[derive(Debug)]
pub struct Countries<T>(Box<[OnceLock<T>]>);

impl<T> Default for Countries<T> {
    fn default() -> Self {
        Self((0..CELLS).map(|_| OnceLock::new()).collect())
    }
}

impl<T> Countries<T> {
    /// Returns the value for `country` (ISO 3166). The first call creates it with `make`, which
    /// gets the label.
    pub fn of(&self, country: &str, make: impl FnOnce(&str) -> T) -> &T {
        let (place, label) = match country.as_bytes() {
            [first @ b'A'..=b'Z', second @ b'A'..=b'Z'] => {
                let place = usize::from(first - b'A') * 26 + usize::from(second - b'A');
                (place, country)
            }
            _ => (CELLS - 1, NONE),
        };
        self.0[place].get_or_init(|| make(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_country_has_one_cell_and_what_is_none_shares_one() {
        let countries = Countries::default();
        for country in ["AA", "DE", "ZZ"] {
            assert_eq!(countries.of(country, str::to_owned), country);
            assert_eq!(countries.of(country, |_| String::new()), country);
        }
        for none in ["", "de", "D", "DEU", "Ä", "+4915112345678"] {
            assert_eq!(countries.of(none, str::to_owned), NONE, "{none}");
        }
    }
}
