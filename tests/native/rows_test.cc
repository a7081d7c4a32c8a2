// The list of scored rows: order, counts, and labels that are refused.
#include <vector>
#include "jobs/batch.h"
#include "check.h"

using namespace diralign;

namespace {

struct Labels {
  std::vector<int32_t> labels, sft_labels, offsets;
  Batch batch;

  Labels(std::vector<int32_t> y, int64_t sequences, int64_t vocab, std::vector<int32_t> packed = {},
         std::vector<int32_t> sft = {})
      : labels(std::move(y)), sft_labels(std::move(sft)), offsets(std::move(packed)) {
    batch.rows = int64_t(labels.size());
    batch.vocab = batch.row_stride = vocab;
    batch.sequences = sequences;
    batch.labels = labels.data();
    if (!offsets.empty()) batch.offsets = offsets.data();
    if (!sft_labels.empty()) batch.sft_labels = sft_labels.data();
  }
  Labels(const Labels&) = delete;
};

void check_row(const ScoredRow& r, int64_t row, int64_t sequence, int32_t label,
               int32_t sft_label) {
  CHECK(r.row == row && r.sequence == sequence && r.label == label && r.sft_label == sft_label,
        "row %lld of sequence %lld: %d, %d", (long long)r.row, (long long)r.sequence, r.label,
        r.sft_label);
}

Units pairs(int64_t count) { return {Arity::pair, count, nullptr}; }

}  // namespace

TEST(rows_padded) {
  // Two pairs of three rows each: sequences 0 and 2, 1 and 3.
  Labels l({-100, 4, 5, 1, -100, 0, 2, 3, -100, -100, -100, -100}, 4, 6);
  RowList rows;
  CHECK(!list_rows(l.batch, pairs(2), rows));
  CHECK(rows.scored.size() == 6);
  // Pair by pair; the likelihood term scores the chosen only.
  check_row(rows.scored[0], 1, 0, 4, 4);
  check_row(rows.scored[1], 2, 0, 5, 5);
  check_row(rows.scored[2], 6, 2, 2, -1);
  check_row(rows.scored[3], 7, 2, 3, -1);
  check_row(rows.scored[4], 3, 1, 1, 1);
  check_row(rows.scored[5], 5, 1, 0, 0);
  CHECK(rows.ignored == Array<int64_t>({0, 8, 4, 9, 10, 11}));
  CHECK(rows.counts == Array<int32_t>({2, 2, 2, 0}));
  CHECK(rows.lengths == Array<double>({2, 2, 2, 0}));
  CHECK(rows.sft_lengths == Array<double>({2, 2, 0, 0}));
  CHECK(rows.begin == Array<int64_t>({0, 4, 2, 6}));
  CHECK(rows.end == Array<int64_t>({2, 6, 4, 6}));
}

TEST(rows_packed) {
  Labels l({7, 7, -1, 7, 7, 7, -1}, 4, 8, {0, 3, 3, 4, 7});
  l.batch.ignore_index = -1;
  RowList rows;
  CHECK(!list_rows(l.batch, pairs(2), rows));
  CHECK(rows.counts == Array<int32_t>({2, 0, 1, 2}));
  CHECK(rows.begin == Array<int64_t>({0, 3, 2, 3}));
  CHECK(rows.end == Array<int64_t>({2, 3, 3, 5}));
  CHECK(rows.scored.size() == 5 && rows.scored[2].row == 3 && rows.scored[2].sequence == 2 &&
        rows.scored[3].row == 4);
  CHECK(rows.ignored == Array<int64_t>({2, 6}));
}

TEST(rows_of_single_sequences) {
  // The likelihood term scores every sequence.
  Labels l({1, 2, -100, 0, 1, 1}, 3, 3);
  RowList rows;
  CHECK(!list_rows(l.batch, single_units(3), rows));
  CHECK(rows.counts == Array<int32_t>({2, 1, 2}));
  CHECK(rows.sft_lengths == rows.lengths);
  CHECK(rows.scored.size() == 5);
  for (const ScoredRow& r : rows.scored) CHECK(r.sft_label == r.label);
}

TEST(rows_separate_likelihood_labels) {
  // Rows scored by both terms, by either, and by neither; on the rejected side the likelihood's
  // labels mean nothing.
  Labels l({3, 3, -100, -100, 2, -100, -100, 2}, 2, 4, {}, {1, -100, 1, -100, 0, 0, -100, -100});
  RowList rows;
  CHECK(!list_rows(l.batch, pairs(1), rows));
  CHECK(rows.scored.size() == 5);
  check_row(rows.scored[0], 0, 0, 3, 1);
  check_row(rows.scored[1], 1, 0, 3, -1);
  check_row(rows.scored[2], 2, 0, -1, 1);
  check_row(rows.scored[3], 4, 1, 2, -1);
  check_row(rows.scored[4], 7, 1, 2, -1);
  CHECK(rows.scored[0].primary() == 3 && rows.scored[2].primary() == 1 &&
        !rows.scored[2].has_label());
  CHECK(rows.counts == Array<int32_t>({2, 2}));
  CHECK(rows.sft_lengths == Array<double>({2, 0}));
  CHECK(rows.ignored == Array<int64_t>({3, 5, 6}));
}

TEST(rows_bad_labels) {
  struct Case {
    int32_t label;
    bool bad;
  };
  const Case cases[] = {{0, false},  {4, false},   {-100, false},     {5, true},        {-1, true},
                        {-99, true}, {-101, true}, {INT32_MAX, true}, {INT32_MIN, true}};
  for (const Case& c : cases) {
    for (int64_t place = 0; place < 8; place++) {
      std::vector<int32_t> y(8, 2);
      y[size_t(place)] = c.label;
      RowList rows, sft_rows;
      Labels l(y, 4, 5);
      const auto error = list_rows(l.batch, pairs(2), rows);
      CHECK(error.has_value() == c.bad, "%d at %lld", c.label, (long long)place);
      if (error)
        CHECK(!error->sft && error->row == place && error->label == c.label, "%d at %lld: row %lld",
              c.label, (long long)place, (long long)error->row);
      // In the likelihood's labels as well, on either side.
      Labels s(std::vector<int32_t>(8, 2), 4, 5, {}, y);
      const auto sft_error = list_rows(s.batch, pairs(2), sft_rows);
      CHECK(sft_error.has_value() == c.bad, "%d at %lld", c.label, (long long)place);
      if (sft_error)
        CHECK(sft_error->sft && sft_error->row == place && sft_error->label == c.label,
              "%d at %lld", c.label, (long long)place);
    }
  }
  // An ignore index inside the vocabulary wins over the class of that number.
  Labels l({2, 2, 3, 2}, 2, 5);
  l.batch.ignore_index = 2;
  RowList rows;
  CHECK(!list_rows(l.batch, pairs(1), rows));
  CHECK(rows.counts == Array<int32_t>({0, 1}));
}

TEST(rows_nothing) {
  for (int64_t sequences : {0, 2}) {
    Labels l({}, sequences, 5);
    RowList rows;
    CHECK(!list_rows(l.batch, pairs(sequences / 2), rows));
    CHECK(rows.scored.empty() && rows.ignored.empty() && int64_t(rows.counts.size()) == sequences);
  }
  Labels l(std::vector<int32_t>(6, -100), 2, 5);
  RowList rows;
  CHECK(!list_rows(l.batch, pairs(1), rows));
  CHECK(rows.scored.empty() && rows.ignored.size() == 6 && rows.counts == Array<int32_t>({0, 0}));
}
