//! Puts stock on sale: for every product of the price lists, one line per date.

use aws_config::SdkConfig;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{ToSpan, civil::Date};
use saga::{Catalogue, CatalogueError, PartName, PartType, StockLine};
use store::{Journal, StockTable, StoreError};
use travel::TRAVEL;

use local_aws::{Stack, StackError};
use traveller::TripRequest;

/// For how many days stock is loaded by default.
pub const DAYS: u16 = 90;
/// How many lines one request writes (DynamoDB's limit), and how many requests run at once.
const BATCH: (usize, usize) = (25, 8);

/// Why stock could not be loaded or read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The program was built with an invalid price list.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The stack was not deployed from this project's template.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// DynamoDB did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Loads the stock of a stack.
#[derive(Clone, Debug)]
pub struct StockLoader(Vec<(PartType, Catalogue, StockTable)>);

impl StockLoader {
    pub fn of(stack: &Stack, sdk: &SdkConfig) -> Result<Self, LoadError> {
        let client = store::client(sdk);
        let journal = Journal::new(client.clone(), stack.journal_table()?, 1); // never written here
        let table = |part_type: &PartType| {
            let name = stack.stock_table(part_type.name)?;
            let table = StockTable::new(client.clone(), name, journal.clone());
            Ok((*part_type, Catalogue::read(part_type.price_list)?, table))
        };
        TRAVEL.parts.iter().map(table).collect::<Result<_, LoadError>>().map(Self)
    }

    /// Only these parts of the stock.
    pub fn only(mut self, parts: &[PartName]) -> Self {
        self.0.retain(|(part_type, ..)| parts.contains(&part_type.name));
        self
    }

    /// How many stock lines there are for these dates.
    pub fn count(&self, dates: &[Date]) -> usize {
        self.0.iter().map(|(part_type, catalogue, _)| lines(part_type, catalogue, dates).len()).sum()
    }

    /// Puts everything on sale for these dates, **replacing** the previous stock: units that were sold are for sale
    /// again. `loaded` gets the number of lines done, batch by batch.
    pub async fn load(&self, dates: &[Date], loaded: impl Fn(usize)) -> Result<(), LoadError> {
        let batches = self.0.iter().flat_map(|(part_type, catalogue, table)| {
            let lines = lines(part_type, catalogue, dates);
            lines.chunks(BATCH.0).map(|lines| (table, lines.to_vec())).collect::<Vec<_>>()
        });
        let seeds = stream::iter(batches).map(|(table, lines)| async move {
            table.seed(&lines).await?;
            Ok::<_, LoadError>(lines.len())
        });
        seeds
            .buffer_unordered(BATCH.1)
            .try_for_each(|lines| {
                loaded(lines);
                std::future::ready(Ok(()))
            })
            .await
    }

    /// Whether there is stock for `times` trips like this one; none if one of its dates is not on sale at all. Products
    /// that cannot be bought, because they have no units or are unknown, do not count.
    pub async fn suffices(&self, trip: &TripRequest, times: u32) -> Result<Option<bool>, LoadError> {
        let mut suffices = true;
        let needed = trip.lines();
        for (part_type, catalogue, table) in &self.0 {
            let lines = needed.iter().filter(|(name, _)| *name == part_type.name).flat_map(|(_, lines)| lines);
            for line in lines {
                if !catalogue.offers().any(|(product, offer)| product == line.product && offer.units > 0) {
                    continue;
                }
                let Some((available, _)) = table.available(line).await? else { return Ok(None) };
                suffices &= available >= i64::from(line.units) * i64::from(times);
            }
        }
        Ok(Some(suffices))
    }
}

/// The given number of dates, from `first` on.
pub fn dates(first: Date, days: u16) -> Vec<Date> {
    (0..i64::from(days)).map(|day| first.saturating_add(day.days())).collect()
}

/// The stock lines of a part for these dates, in order; for a part sold without dates, one line per product.
pub fn lines(part_type: &PartType, catalogue: &Catalogue, dates: &[Date]) -> Vec<StockLine> {
    let dates: Vec<_> = if part_type.is_dated { dates.iter().copied().map(Some).collect() } else { vec![None] };
    let line = |(product, offer): (&str, &saga::Offer), date: &Option<Date>| StockLine {
        product: product.to_owned(),
        date: *date,
        units: offer.units,
    };
    catalogue.offers().flat_map(|offer| dates.iter().map(move |date| line(offer, date))).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn every_product_has_a_line_on_every_date() {
        let dates = dates(date(2027, 2, 27), 3);
        assert_eq!(dates, [date(2027, 2, 27), date(2027, 2, 28), date(2027, 3, 1)]);
        for part_type in TRAVEL.parts {
            let catalogue = Catalogue::read(part_type.price_list).unwrap();
            let loaded = lines(part_type, &catalogue, &dates);
            assert_eq!(loaded.len(), catalogue.offers().count() * 3);
            let keys: std::collections::HashSet<_> = loaded.iter().map(|line| (&line.product, line.date)).collect();
            assert_eq!(keys.len(), loaded.len(), "{part_type:?}");
            let undated = lines(&PartType { is_dated: false, ..*part_type }, &catalogue, &dates);
            assert_eq!(undated.len(), catalogue.offers().count());
            assert!(undated.iter().all(|line| line.date.is_none()));
        }
    }

    #[test]
    fn a_line_has_what_the_price_list_says_and_may_be_empty() {
        let catalogue = Catalogue::read(travel::HOTEL.price_list).unwrap();
        let lines = lines(&travel::HOTEL, &catalogue, &[date(2027, 3, 1)]);
        let units = |hotel: &str| lines.iter().find(|line| line.product == hotel).map(|line| line.units);
        assert_eq!(units("nyc-plaza"), Some(40));
        assert_eq!(units("nyc-annex"), Some(0), "the demo needs a hotel on sale that has no room");
    }
}
