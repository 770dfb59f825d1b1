//! Bit vectors (Lakshman and Stiliadis, SIGCOMM 1998): for each stretch of values of a field, a bit for each filter
//! that matches them. The first bit that all fields have in common is the filter.

use dataplane_core::{classify::Query, table::Filter};

use super::{FIELDS, Find, after, ranges, values};

/// Octets at most.
const ROOM: usize = 1 << 30;

/// The vectors.
#[derive(Debug)]
pub struct Vectors {
    filters: Vec<Filter>,
    fields: Vec<Field>,
    /// Words of a vector.
    words: usize,
}

#[derive(Debug)]
struct Field {
    /// Where stretches begin.
    starts: Vec<[u64; 2]>,
    bits: Vec<u64>,
}

impl Find for Vectors {
    const NAME: &'static str = "bit vectors";

    fn build(filters: &[Filter]) -> Option<Self> {
        let words = filters.len().div_ceil(64);
        let mut room = ROOM / 8;
        let mut fields = Vec::new();
        for field in 0..FIELDS {
            let all: Vec<_> = filters.iter().map(|filter| ranges(filter)[field]).collect();
            let mut starts: Vec<_> = all
                .iter()
                .flat_map(|[first, last]| [*first, after(*last)])
                .chain([[0; 2]])
                .collect();
            starts.sort_unstable();
            starts.dedup();
            room = room.checked_sub(starts.len() * words)?;
            let mut bits = vec![0; starts.len() * words];
            for (place, [first, last]) in all.iter().enumerate() {
                let begin = starts.partition_point(|start| start < first);
                let end = starts.partition_point(|start| start <= last);
                for stretch in begin..end {
                    bits[stretch * words + place / 64] |= 1 << (place % 64);
                }
            }
            fields.push(Field { starts, bits });
        }
        Some(Self {
            filters: filters.to_vec(),
            fields,
            words,
        })
    }

    fn find(&self, query: &Query) -> Option<u32> {
        let values = values(query);
        let vectors: [&[u64]; FIELDS] = std::array::from_fn(|at| {
            let field = &self.fields[at];
            let stretch = field.starts.partition_point(|start| *start <= values[at]) - 1;
            &field.bits[stretch * self.words..][..self.words]
        });
        for word in 0..self.words {
            let mut common = vectors.iter().fold(u64::MAX, |bits, it| bits & it[word]);
            while common != 0 {
                let place = word * 64 + common.trailing_zeros() as usize;
                if query.meets(&self.filters[place]) {
                    return Some(place as u32);
                }
                common &= common - 1;
            }
        }
        None
    }

    fn size(&self) -> usize {
        let fields = self.fields.iter();
        fields
            .map(|field| size_of_val(&*field.starts) + size_of_val(&*field.bits))
            .sum()
    }
}
