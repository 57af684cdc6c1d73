//! The file of departures: read and checked as a whole, before anything is published.
//!
//! A file is either good or refused; the error names the bad lines. `NA` (or an empty field) stands
//! for an unrecorded value: a cancelled flight has no departure time, and a tail number may be
//! unknown. Rows may come in any order.

use std::{
    fmt,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;

use crate::flights::{Cancelled, Departed, Flight};

use super::text::counted;

/// The columns, in their order: those of nycflights13's `flights`.
const COLUMNS: [&str; 19] = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
];
/// Columns that the demo does not use, and that hold a whole number or `NA`.
const UNUSED_NUMBERS: [&str; 8] = [
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "air_time",
    "hour",
    "minute",
];
/// The airports that flights depart from.
pub(super) const AIRPORTS: [&str; 3] = ["EWR", "JFK", "LGA"];
/// Longest distance in miles: no airport is further away, and sums stay far from any overflow.
const DISTANCE_MAX: i32 = 12_500;
/// Most bad rows that are listed: in a file of another form every row is bad.
const LISTED: usize = 20;

/// A row as the command that it is published as.
#[derive(Clone, Debug)]
pub(super) enum FlightRow {
    /// It has a departure time.
    Departed(Departed),
    /// It has none.
    Cancelled(Cancelled),
}

impl FlightRow {
    /// What it says, either way.
    pub(super) const fn flight(&self) -> &Flight {
        match self {
            Self::Departed(Departed(flight)) | Self::Cancelled(Cancelled(flight)) => flight,
        }
    }

    /// Whether the aircraft moved.
    pub(super) const fn departed(&self) -> bool {
        matches!(self, Self::Departed(_))
    }
}

/// A good file.
#[derive(Debug)]
pub(super) struct FlightsFile {
    /// Its name, without folders.
    pub(super) name: String,
    /// Its rows, in its order.
    pub(super) rows: Vec<FlightRow>,
}

/// The file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error(
        "{}: line 1 is not the header of a file of this form, which is {}",
        path.display(),
        COLUMNS.join(",")
    )]
    OtherForm {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to replay.
    #[error("{}: there is no row in it", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Some of its rows are bad. The first line is the summary, the others name them.
    #[error("{name} has {}; nothing was published{}", counted(*bad, "bad row"), List(listed, *bad))]
    BadRows {
        /// The file.
        name: String,
        /// How many.
        bad: usize,
        /// The first of them.
        listed: Vec<BadRow>,
    },
}

/// A bad row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadRow {
    line: u64,
    fault: String,
}

struct List<'a>(&'a [BadRow], usize);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for BadRow { line, fault } in self.0 {
            write!(f, "\nline {line}: {fault}")?;
        }
        match self.1 - self.0.len() {
            0 => Ok(()),
            more => write!(f, "\n… and {}", counted(more, "more")),
        }
    }
}

impl FlightsFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, is of another form, is empty, or has bad rows.
    pub(super) fn read(path: &Path) -> Result<Self, FileError> {
        let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
        let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
        // The first bytes tell the form: a name may say anything.
        let is_gzip = file.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]);
        if is_gzip {
            Self::parse(path, BufReader::new(MultiGzDecoder::new(file)))
        } else {
            Self::parse(path, file)
        }
    }

    fn parse(path: &Path, text: impl Read) -> Result<Self, FileError> {
        let unreadable = |error: csv::Error| FileError::Unreadable {
            path: path.to_owned(),
            source: error.into(),
        };
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        if reader.byte_headers().map_err(unreadable)?.iter().ne(COLUMNS.map(str::as_bytes)) {
            return Err(FileError::OtherForm { path: path.to_owned() });
        }
        let (mut rows, mut bad, mut listed) = (Vec::new(), 0, Vec::new());
        let mut record = csv::ByteRecord::new();
        while reader.read_byte_record(&mut record).map_err(unreadable)? {
            let line = record.position().map_or(0, csv::Position::line);
            match row(&record, line) {
                Ok(row) => rows.push(row),
                Err(fault) => {
                    bad += 1;
                    if listed.len() < LISTED {
                        listed.push(BadRow { line, fault });
                    }
                }
            }
        }
        if bad > 0 {
            Err(FileError::BadRows { name, bad, listed })
        } else if rows.is_empty() {
            Err(FileError::Empty { path: path.to_owned() })
        } else {
            Ok(Self { name, rows })
        }
    }
}

/// Checks one row; the fault is for people.
fn row(record: &csv::ByteRecord, line: u64) -> Result<FlightRow, String> {
    if record.len() != COLUMNS.len() {
        return Err(format!("{}, not {}", counted(record.len(), "column"), COLUMNS.len()));
    }
    let text = std::str::from_utf8(record.as_slice()).map_err(|_| "it is not UTF-8".to_owned())?;
    let fields = Fields { text, record };
    for column in UNUSED_NUMBERS {
        if let Some(value) = fields.known(column) {
            let is_number = value.parse::<i32>().is_ok();
            fields.check(column, is_number, "a whole number or NA")?;
        }
    }
    let (carrier, flight) = (fields.word("carrier", 3)?, fields.number("flight", 1, 9_999)?);
    let aircraft = match fields.known("tailnum") {
        Some(_) => fields.word("tailnum", 10)?,
        None => format!("{carrier}{flight}"),
    };
    let origin = fields.get("origin");
    fields.check("origin", AIRPORTS.contains(&origin), "EWR, JFK or LGA")?;
    let flight = Flight {
        line: i32::try_from(line).map_err(|_| "the file is too long".to_owned())?,
        day: fields.day()?,
        aircraft,
        carrier,
        flight,
        origin: origin.to_owned(),
        dest: fields.word("dest", 4)?,
        distance: fields.number("distance", 1, DISTANCE_MAX)?,
    };
    if fields.known("dep_time").is_none() {
        return Ok(FlightRow::Cancelled(Cancelled(flight)));
    }
    let is_time = matches!(fields.get("dep_time").parse(), Ok(0..=2400)) && fields.minutes_fit();
    fields.check("dep_time", is_time, "a time of day such as 517 or 2359, or NA")?;
    Ok(FlightRow::Departed(Departed(flight)))
}

/// The fields of one row, by the names of their columns.
struct Fields<'a> {
    text: &'a str,
    record: &'a csv::ByteRecord,
}

impl<'a> Fields<'a> {
    fn get(&self, column: &str) -> &'a str {
        let index = COLUMNS.iter().position(|name| *name == column);
        let range = index.and_then(|index| self.record.range(index));
        range.and_then(|range| self.text.get(range)).unwrap_or_default()
    }

    /// `None` for what was not recorded.
    fn known(&self, column: &str) -> Option<&'a str> {
        Some(self.get(column)).filter(|value| !matches!(*value, "" | "NA"))
    }

    fn check(&self, column: &str, holds: bool, rule: &str) -> Result<(), String> {
        if holds {
            return Ok(());
        }
        let value: String = self.get(column).chars().take(40).collect();
        Err(format!("{column} is {value:?}, not {rule}"))
    }

    fn word(&self, column: &str, longest: usize) -> Result<String, String> {
        let value = self.known(column).unwrap_or_default();
        let is_word = (1..=longest).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
        self.check(column, is_word, &format!("1 to {longest} letters and digits"))?;
        Ok(value.to_owned())
    }

    fn number(&self, column: &str, least: i32, most: i32) -> Result<i32, String> {
        let value = self.get(column).parse().ok().filter(|value| (least..=most).contains(value));
        let rule = format!("a whole number from {least} to {most}");
        self.check(column, value.is_some(), &rule)?;
        Ok(value.unwrap_or_default())
    }

    fn minutes_fit(&self) -> bool {
        self.get("dep_time").parse::<u32>().is_ok_and(|time| time % 100 < 60)
    }

    fn day(&self) -> Result<String, String> {
        let year = self.number("year", 1900, 2999)?;
        let month = self.number("month", 1, 12)?;
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let day = self.number("day", 1, days)?;
        Ok(format!("{year}-{month:02}-{day:02}"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const GOOD: &str =
        "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z";
    const CANCELLED: &str =
        "2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z";

    fn parse(rows: &[&str]) -> Result<FlightsFile, FileError> {
        let text = format!("{}\n{}\n", COLUMNS.join(","), rows.join("\n"));
        FlightsFile::parse(Path::new("folder/flights.csv"), text.as_bytes())
    }

    #[test]
    fn a_row_with_a_departure_time_departed_and_one_without_was_cancelled() {
        let file = parse(&[CANCELLED, GOOD]).unwrap();
        assert_eq!(file.name, "flights.csv");
        let [cancelled, departed] = &file.rows[..] else { panic!("{file:?}") };
        assert!(departed.departed() && !cancelled.departed());
        let flight = departed.flight();
        assert_eq!((flight.line, &*flight.day, flight.distance), (3, "2013-01-01", 1400));
        assert_eq!((&*flight.aircraft, &*flight.dest), ("N14228", "IAH"));
        assert_eq!(cancelled.flight().aircraft, "AA133", "no tail number: the flight's");
    }

    #[test]
    fn every_bad_row_is_named_by_its_line_with_what_is_wrong() {
        let cases = [
            ("", "EWR,", "XYZ,", "origin is \"XYZ\", not EWR, JFK or LGA"),
            ("", "UA,", "NA,", "carrier is \"NA\", not 1 to 3 letters and digits"),
            ("", "1545,", ",", "flight is \"\", not a whole number from 1 to 9999"),
            ("", ",1400,", ",-5,", "distance is \"-5\", not a whole number from 1 to 12500"),
            ("", ",1400,", ",NA,", "distance is \"NA\", not a whole number from 1 to 12500"),
            ("", "IAH", "NA", "dest is \"NA\", not 1 to 4 letters and digits"),
            ("", "2013,1,1,", "2013,2,29,", "day is \"29\", not a whole number from 1 to 28"),
            ("", "2013,1,", "2013,13,", "month is \"13\", not a whole number from 1 to 12"),
            (
                "",
                ",517,",
                ",575,",
                "dep_time is \"575\", not a time of day such as 517 or 2359, or NA",
            ),
            ("", ",517,", ",x,", "dep_time is \"x\", not a time of day such as 517 or 2359, or NA"),
            ("", ",830,", ",8:30,", "arr_time is \"8:30\", not a whole number or NA"),
            ("", ",EWR,", ",", "18 columns, not 19"),
            ("", "N14228", "N 1", "tailnum is \"N 1\", not 1 to 10 letters and digits"),
        ];
        for (_, from, to, fault) in cases {
            let bad = GOOD.replacen(from, to, 1);
            let error = parse(&[GOOD, CANCELLED, &bad, GOOD]).unwrap_err().to_string();
            let expected =
                format!("flights.csv has 1 bad row; nothing was published\nline 4: {fault}");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn of_many_bad_rows_the_first_are_listed_and_the_others_counted() {
        let error = parse(&["1,2"; 25]).unwrap_err().to_string();
        assert!(error.starts_with("flights.csv has 25 bad rows;"), "{error}");
        assert!(error.contains("line 21: 2 columns") && !error.contains("line 22"), "{error}");
        assert!(error.ends_with("… and 5 more"), "{error}");
    }

    #[test]
    fn a_file_without_header_or_rows_or_of_broken_gzip_is_refused() {
        let path = Path::new("f.csv");
        let parse_all = |text: &[u8]| FlightsFile::parse(path, text);
        assert!(matches!(parse_all(GOOD.as_bytes()), Err(FileError::OtherForm { .. })));
        assert!(matches!(parse_all(b""), Err(FileError::OtherForm { .. })));
        assert!(matches!(parse(&[]), Err(FileError::Empty { .. })));
        let not_utf8 =
            parse_all(&[COLUMNS.join(",").as_bytes(), b"\n\xff,,,,,,,,,,,,,,,,,,"].concat());
        assert!(not_utf8.unwrap_err().to_string().ends_with("line 2: it is not UTF-8"));

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(format!("{}\n{GOOD}\n", COLUMNS.join(",")).as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let read = |bytes: &[u8]| parse_all_gzip(path, bytes);
        assert_eq!(read(&gzip).unwrap().rows.len(), 1);
        assert!(matches!(read(&gzip[..gzip.len() - 9]), Err(FileError::Unreadable { .. })));
    }

    fn parse_all_gzip(path: &Path, bytes: &[u8]) -> Result<FlightsFile, FileError> {
        FlightsFile::parse(path, MultiGzDecoder::new(bytes))
    }

    #[test]
    fn the_month_in_the_repository_is_good() {
        let january = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/flights-2013-01.csv.gz");
        let file = FlightsFile::read(Path::new(january)).unwrap();
        assert_eq!(file.rows.len(), 27_004);
        assert_eq!(file.rows.iter().filter(|row| !row.departed()).count(), 521);
    }
}
