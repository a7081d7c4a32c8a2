// What PTX instructions compute in the translation of kernels (tests/simt/ptx.h): where C++ or the
// processor would do something else, by the words of the PTX ISA.
#include "ptx.h"
#include <limits>
#include "check.h"

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();
constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST(ptx_shifts_by_the_width_leave_nothing_or_the_sign) {
  CHECK(ptx::left(1u, 31) == 0x80000000u && ptx::left(1u, 32) == 0);
  CHECK(ptx::left(1u, 4000000000u) == 0 && ptx::left(uint16_t(0xffff), 8) == 0xff00);
  CHECK(ptx::left(uint64_t(1), 63) == uint64_t(1) << 63 && ptx::right(~0u, 32) == 0);
  CHECK(ptx::right(-8, 1) == -4 && ptx::right(-8, 32) == -1 && ptx::right(8, 99) == 0);
}

TEST(ptx_products_have_their_part) {
  CHECK(ptx::product<ptx::lo>(0xffffffffu, 0xffffffffu) == 1u);
  CHECK(ptx::product<ptx::hi>(0xffffffffu, 0xffffffffu) == 0xfffffffeu);
  CHECK(ptx::product<ptx::wide>(0xffffffffu, 2u) == 0x1fffffffeu);
  CHECK(ptx::product<ptx::wide>(-3, 5) == uint64_t(-15) && ptx::product<ptx::hi>(-3, 5) == ~0u);
  CHECK(ptx::product<ptx::hi>(uint64_t(1) << 63, uint64_t(6)) == 3);
}

TEST(ptx_maximum_and_minimum_prefer_numbers_and_order_zeros) {
  CHECK(ptx::maximum(no_number, -infinite) == -infinite && ptx::maximum(1.0f, no_number) == 1.0f);
  CHECK(ptx::minimum(no_number, infinite) == infinite);
  CHECK(ptx::minimum(-infinite, no_number) == -infinite);
  CHECK(std::isnan(ptx::maximum(no_number, no_number)));
  CHECK(std::isnan(ptx::minimum(no_number, no_number)));
  CHECK(!std::signbit(ptx::maximum(-0.0f, 0.0f)) && !std::signbit(ptx::maximum(0.0f, -0.0f)));
  CHECK(std::signbit(ptx::minimum(-0.0f, 0.0f)) && std::signbit(ptx::minimum(0.0f, -0.0f)));
  CHECK(ptx::maximum(-5, 3) == 3 && ptx::minimum(~0u, 3u) == 3u);
}

TEST(ptx_halves_are_compared_apart) {
  // bfloat16: 0x3f80 is 1, 0xbf80 is -1, 0x7fc0 is NaN.
  constexpr auto numbers = ptx::each_half<ptx::bf16, false>, nans = ptx::each_half<ptx::bf16, true>;
  CHECK(numbers(ptx::maximum<float>, 0x3f80bf80u, 0xbf803f80u) == 0x3f803f80u);
  CHECK(numbers(ptx::maximum<float>, 0x7fc0bf80u, 0x3f807fc0u) == 0x3f80bf80u);
  CHECK(nans(ptx::maximum<float>, 0x7fc0bf80u, 0x3f807fc0u) == 0x7fff7fffu);
  // float16: 0x3c00 is 1, 0xfc00 is -infinity.
  constexpr auto short_numbers = ptx::each_half<ptx::f16, false>;
  CHECK(short_numbers(ptx::minimum<float>, 0x3c00fc00u, 0xfc003c00u) == 0xfc00fc00u);
}

TEST(ptx_conversions_to_integers_saturate) {
  CHECK(ptx::to_integer<int32_t>(no_number) == 0 && ptx::to_integer<uint32_t>(-1.0f) == 0);
  CHECK(ptx::to_integer<int32_t>(infinite) == 0x7fffffff);
  CHECK(ptx::to_integer<int32_t>(-3e9) == -0x7fffffff - 1);
  CHECK(ptx::to_integer<uint32_t>(4294967295.0) == ~0u);
  CHECK(ptx::to_integer<int64_t>(1e30) == std::numeric_limits<int64_t>::max());
}

TEST(ptx_reciprocals_start_from_the_high_word) {
  const double third = ptx::reciprocal_of_high_word(3.0);
  CHECK((std::bit_cast<uint64_t>(third) & 0xffffffffu) == 0);
  CHECK(third <= 1.0 / 3 && third >= 1.0 / 3 * (1 - 0x1p-20));
  CHECK(ptx::reciprocal_of_high_word(std::nextafter(2.0, 3.0)) == 0.5);
  CHECK(ptx::reciprocal_of_high_word(-5e-324) == -double(infinite));
  CHECK(ptx::reciprocal_of_high_word(double(infinite)) == 0);
}

TEST(ptx_exponentials_flush) {
  CHECK(ptx::exp2_approx_ftz(1e-40f) == 1 && ptx::exp2_approx_ftz(-126.5f) == 0);
  CHECK(ptx::exp2_approx_ftz(-infinite) == 0);
  CHECK(ptx::exp2_approx_ftz(129) == infinite && std::isnan(ptx::exp2_approx_ftz(no_number)));
}

namespace {

constexpr ptx::SharedVariable shared_variables[] = {{8, 8}, {32 * 4, 16}};

/// Each lane leaves what every kind of shuffle gave it, a hundred more where that was in range.
__global__ void shuffle_all(uint32_t (*seen)[4]) {
  const uint32_t lane = threadIdx.x;
  const auto keep = [](ptx::Shuffled s) { return s.value + (s.in_range ? 100 : 0); };
  seen[lane][0] = keep(ptx::shuffle<ptx::up>(lane, 3, 0, ~0u));
  seen[lane][1] = keep(ptx::shuffle<ptx::down>(lane, 3, 31, ~0u));
  seen[lane][2] = keep(ptx::shuffle<ptx::bfly>(lane, 16, 31, ~0u));
  // Segments of eight lanes.
  seen[lane][3] = keep(ptx::shuffle<ptx::idx>(lane, 10, 0x18u << 8 | 7, ~0u));
}

__global__ void exchange(uint32_t* seen) {
  const uint32_t lane = threadIdx.x;
  const uint64_t array = 2 * ptx::shared_window;
  ptx::put<uint32_t>(ptx::shared(shared_variables, array + 4 * lane, 4), 0, lane);
  __syncthreads();
  char* const other = ptx::shared(shared_variables, array + 4 * (31 - lane), 4);
  seen[lane] = ptx::get<uint32_t>(other, 0);
  const uint64_t address = ptx::to_shared(shared_variables, reinterpret_cast<uintptr_t>(other));
  if (address != array + 4 * (31 - lane)) seen[lane] = 99;
}

}  // namespace

TEST(ptx_lanes_outside_a_segment_keep_their_value) {
  static uint32_t seen[32][4];
  CHECK(simt::launch(shuffle_all, 1, 32, 0, nullptr, seen) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  for (uint32_t lane = 0; lane < 32; lane++) {
    CHECK(seen[lane][0] == (lane >= 3 ? lane - 3 + 100 : lane));
    CHECK(seen[lane][1] == (lane <= 28 ? lane + 3 + 100 : lane));
    CHECK(seen[lane][2] == (lane ^ 16u) + 100);
    CHECK(seen[lane][3] == (lane & 24u) + 2 + 100);
  }
}

TEST(ptx_shared_variables_have_addresses_of_their_own) {
  static uint32_t seen[32];
  CHECK(simt::launch(exchange, 1, 32, 0, nullptr, seen) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  for (uint32_t lane = 0; lane < 32; lane++) CHECK(seen[lane] == 31 - lane);
}
