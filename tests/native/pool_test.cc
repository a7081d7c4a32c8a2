// The thread pool: every item once, teams inside teams and beside each other, and owners that
// leave. Written to give ThreadSanitizer something to see: items write plain memory that other
// threads read in the next phase.
#include "jobs/pool.h"
#include <algorithm>
#include <chrono>
#include <set>
#include "check.h"

using namespace diralign;

namespace {

/// Phases of every size; `values` is written by whoever takes the item and read by whoever has it
/// in the next phase.
void run_phases(Pool& pool, int threads, int phases, uint64_t seed) {
  check::Random random(seed);
  Team team(pool, threads);
  CHECK(team.members() == std::max(1, threads));
  std::vector<int64_t> values(400, 0);
  std::vector<int> by_member(size_t(team.members()),
                             0);  // a member is one thread: it needs no atomic
  int64_t items = 0;
  for (int phase = 1; phase <= phases; phase++) {
    const int64_t count = phase % 5 == 0   ? 0
                          : phase % 5 == 1 ? 1
                          : phase % 5 == 2 ? 2
                                           : random.below(400);
    const int64_t shift = random.below(400);
    for (int64_t i = 0; i < count; i++) values[size_t((i + shift) % 400)] = phase;
    team.run(count, [&](int64_t i, int member) {
      CHECK(i >= 0 && i < count && member >= 0 && member < team.members(),
            "item %lld of %lld, member %d", (long long)i, (long long)count, member);
      values[size_t((i + shift) % 400)] += 1000;
      by_member[size_t(member)]++;
    });
    items += count;
    for (int64_t i = 0; i < 400; i++) {
      const int64_t value = values[size_t((i + shift) % 400)];
      CHECK(i < count ? value == phase + 1000 : value < phase + 1000,
            "phase %d, item %lld of %lld: %lld", phase, (long long)i, (long long)count,
            (long long)value);
    }
  }
  int64_t done = 0;
  for (int n : by_member) done += n;
  CHECK(done == items, "%lld of %lld", (long long)done, (long long)items);
}

}  // namespace

TEST(pool_every_item_once) {
  auto pool = Pool::shared();
  for (int threads = 1; threads <= 16; threads++)
    run_phases(*pool, threads, check::slow ? 60 : 400, uint64_t(threads));
}

TEST(pool_no_threads_is_one) {
  auto pool = Pool::shared();
  for (int threads : {0, -1, -1000}) {
    Team team(*pool, threads);
    CHECK(team.members() == 1);
    int64_t sum = 0;
    team.run(10, [&](int64_t i, int member) { sum += i + member; });
    CHECK(sum == 45);
  }
}

TEST(pool_empty_teams) {
  // Teams that end before a helper comes, and helpers that come after the end.
  auto pool = Pool::shared();
  for (int i = 0; i < (check::slow ? 200 : 2000); i++) Team team(*pool, 1 + i % 9);
}

TEST(pool_work_in_order_of_phases) {
  // Each phase reads what all items of the one before wrote: a phase that let go too early shows.
  auto pool = Pool::shared();
  Team team(*pool, 6);
  constexpr int64_t n = 64;
  std::vector<int64_t> from(n, 1), to(n);
  for (int phase = 0; phase < 30; phase++) {
    team.run(n, [&](int64_t i, int) {
      int64_t sum = 0;
      for (int64_t x : from) sum += x;
      to[size_t(i)] = sum % 1000003 + i;
    });
    int64_t sum = 0;
    for (int64_t x : from) sum += x;
    for (int64_t i = 0; i < n; i++)
      CHECK(to[size_t(i)] == sum % 1000003 + i, "phase %d item %lld", phase, (long long)i);
    std::swap(from, to);
  }
}

TEST(pool_nested_teams) {
  // The inner teams' helpers may never run: all threads are busy with the outer one.
  auto pool = Pool::shared();
  for (int round = 0; round < (check::slow ? 3 : 20); round++) {
    Team outer(*pool, 4);
    std::vector<int64_t> sums(12, 0);
    outer.run(12, [&](int64_t i, int) {
      Team inner(*pool, 3);
      std::vector<int64_t> parts(20, 0);
      for (int phase = 0; phase < 3; phase++)
        inner.run(20, [&](int64_t k, int) { parts[size_t(k)] += k * i; });
      for (int64_t part : parts) sums[size_t(i)] += part;
    });
    for (int64_t i = 0; i < 12; i++)
      CHECK(sums[size_t(i)] == 3 * 190 * i, "item %lld: %lld", (long long)i,
            (long long)sums[size_t(i)]);
  }
}

TEST(pool_concurrent_teams) {
  // As many Node environments would: several threads, each with its own teams on the one pool.
  std::vector<std::thread> environments;
  for (uint64_t e = 0; e < 5; e++)
    environments.emplace_back([e] {
      auto pool = Pool::shared();
      for (int job = 0; job < 4; job++)
        run_phases(*pool, 2 + int(e), check::slow ? 20 : 100, 100 * e + uint64_t(job));
    });
  for (std::thread& t : environments) t.join();
}

TEST(pool_posted_tasks) {
  // Asynchronous jobs: a task on the pool that forms a team there.
  auto pool = Pool::shared();
  std::mutex mutex;
  std::condition_variable done;
  int finished = 0;
  constexpr int tasks = 12;
  for (int t = 0; t < tasks; t++)
    pool->post(
        [&, t] {
          run_phases(*pool, 3, 10, uint64_t(t));
          std::lock_guard<std::mutex> lock(mutex);
          finished++;
          done.notify_one();
        },
        2);
  std::unique_lock<std::mutex> lock(mutex);
  done.wait(lock, [&] { return finished == tasks; });
}

TEST(pool_shared_while_owned) {
  auto first = Pool::shared();
  CHECK(Pool::shared() == first);
  std::weak_ptr<Pool> watch = first;
  first.reset();
  CHECK(watch.expired());
  // The next owner starts a new one.
  auto second = Pool::shared();
  run_phases(*second, 4, 20, 1);
}

TEST(pool_last_owner_leaves) {
  // What was posted is done before the threads are joined, whatever is still queued.
  for (int round = 0; round < (check::slow ? 10 : 50); round++) {
    std::atomic<int> ran{0};
    int plain = 0;
    {
      auto pool = Pool::shared();
      for (int t = 0; t < 20; t++) pool->post([&ran] { ran++; }, 1 + round % 4);
      pool->post(
          [&plain] {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            plain = 1;
          },
          1);
    }
    CHECK(ran == 20 && plain == 1, "%d", ran.load());
  }
  // Several owners that come and go at the same time.
  std::vector<std::thread> owners;
  for (int o = 0; o < 4; o++)
    owners.emplace_back([o] {
      for (int round = 0; round < (check::slow ? 15 : 100); round++)
        run_phases(*Pool::shared(), 1 + (o + round) % 4, 5, uint64_t(o));
    });
  for (std::thread& t : owners) t.join();
}

TEST(pool_cancellation) {
  // An item that looks at a flag, as the jobs do: after it is set, run() still returns, and nothing
  // runs afterwards.
  auto pool = Pool::shared();
  for (int round = 0; round < 20; round++) {
    std::atomic<bool> cancelled{false};
    std::atomic<int> worked{0};
    std::thread canceller([&] {
      while (worked.load() < 5) std::this_thread::yield();
      cancelled = true;
    });
    {
      Team team(*pool, 4);
      team.run(2000, [&](int64_t, int) {
        if (cancelled.load(std::memory_order_relaxed)) return;
        worked++;
      });
      const int after = worked;
      canceller.join();
      std::this_thread::yield();
      CHECK(worked == after && after >= 5);
    }
  }
}

TEST(pool_uses_its_threads) {
  // Items that wait for each other: a team whose helpers did not come would never end.
  auto pool = Pool::shared();
  Team team(*pool, 3);
  std::mutex mutex;
  std::condition_variable arrived;
  std::set<std::thread::id> threads;
  std::set<int> members;
  team.run(3, [&](int64_t, int member) {
    std::unique_lock<std::mutex> lock(mutex);
    threads.insert(std::this_thread::get_id());
    members.insert(member);
    arrived.notify_all();
    arrived.wait(lock, [&] { return threads.size() == 3; });
  });
  CHECK(members == std::set<int>({0, 1, 2}), "%zu members", members.size());
}

namespace {

/// Keeps a pool's threads busy until it opens.
struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  int inside = 0;
  bool open = false;

  std::function<void()> task() {
    return [this] {
      std::unique_lock<std::mutex> lock(mutex);
      inside++;
      changed.notify_all();
      changed.wait(lock, [this] { return open; });
    };
  }
  void wait_for(int tasks) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return inside == tasks; });
  }
  void let_go() {
    std::lock_guard<std::mutex> lock(mutex);
    open = true;
    changed.notify_all();
  }
};

void wait_until_idle(Pool& pool) {
  for (Pool::Counts c = pool.counts(); c.idle != c.threads || c.waiting > 0; c = pool.counts())
    std::this_thread::yield();
}

}  // namespace

TEST(pool_threads_by_work) {
  // As many threads as there is work for, whatever was asked for.
  Pool pool;
  CHECK(pool.counts().threads == 0);
  Gate gate;
  for (int tasks = 1; tasks <= 3; tasks++) {
    pool.post(gate.task(), 1024);
    CHECK(pool.counts().threads == tasks, "%d for %d", pool.counts().threads, tasks);
  }
  // And no more than were asked for.
  for (int tasks = 4; tasks <= 9; tasks++) {
    pool.post(gate.task(), 5);
    CHECK(pool.counts().threads == std::min(tasks, 5), "%d for %d", pool.counts().threads, tasks);
  }
  gate.let_go();
  // Those that are there are used again.
  for (int round = 0; round < 20; round++) {
    wait_until_idle(pool);
    std::atomic<int> ran{0};
    pool.post([&] { ran++; }, 1024, 5);
    wait_until_idle(pool);
    CHECK(ran == 5 && pool.counts().threads == 5, "%d runs, %d threads", ran.load(),
          pool.counts().threads);
  }
}

TEST(pool_threads_of_a_team) {
  // A team's caller is one of its members, and may be a thread of the pool itself.
  {
    Pool pool;
    Team team(pool, 4);
    CHECK(pool.counts().threads == 3, "%d", pool.counts().threads);
  }
  Pool pool;
  std::atomic<int> threads{0};
  pool.post(
      [&] {
        Team team(pool, 4);
        threads = pool.counts().threads;
      },
      1);
  wait_until_idle(pool);
  CHECK(threads == 4, "%d", threads.load());
}

TEST(pool_withdrawn_tasks) {
  auto held = std::make_shared<int>(0);
  std::atomic<int> ran{0}, kept{0};
  {
    Pool pool;
    Gate gate;
    const uint64_t running = pool.post(gate.task(), 1);
    gate.wait_for(1);
    const uint64_t one = pool.post([&ran, held] { ran++; }, 1),
                   several = pool.post([&ran, held] { ran++; }, 1, 3);
    pool.post([&kept] { kept++; }, 1, 2);
    CHECK(pool.counts().waiting == 6 && held.use_count() == 3);
    CHECK(pool.withdraw(one) == 1 && pool.withdraw(one) == 0);
    CHECK(held.use_count() == 2, "a withdrawn task is still held");
    CHECK(pool.withdraw(several) == 3);
    CHECK(held.use_count() == 1);
    CHECK(pool.withdraw(running) == 0 && pool.withdraw(0) == 0 &&
          pool.withdraw(several + 1000) == 0);
    CHECK(pool.counts().waiting == 2);
    gate.let_go();
  }
  CHECK(ran == 0 && kept == 2, "%d withdrawn ran, %d kept", ran.load(), kept.load());
}

TEST(pool_teams_leave_nothing_queued) {
  // While all threads are busy with something else, helpers that never came must not pile up.
  Pool pool;
  Gate gate;
  for (int i = 0; i < 2; i++) pool.post(gate.task(), 2);
  gate.wait_for(2);
  for (int round = 0; round < 50; round++) {
    int64_t sum = 0;
    {
      Team team(pool, 3);
      team.run(10, [&](int64_t i, int member) { sum += i + member; });
      CHECK(pool.counts().waiting == 2);
    }
    CHECK(sum == 45 && pool.counts().waiting == 0, "%d waiting", pool.counts().waiting);
  }
  gate.let_go();
}

TEST(pool_withdrawing_races) {
  // Every copy is run or withdrawn, whoever is first.
  Pool pool;
  std::atomic<int64_t> ran{0}, withdrawn{0};
  std::vector<std::thread> owners;
  constexpr int rounds = check::slow ? 300 : 3000;
  for (uint64_t o = 0; o < 4; o++)
    owners.emplace_back([&, o] {
      check::Random random(o);
      for (int round = 0; round < rounds; round++) {
        // Not counted by an atomic: the one who withdrew it may free what it uses.
        auto mine = std::make_unique<std::atomic<int>>(0);
        const int copies = 1 + int(random.below(3));
        const uint64_t id = pool.post([&ran, raw = mine.get()] { (*raw)++, ran++; }, 3, copies);
        if (random.below(2)) std::this_thread::yield();
        const int left = pool.withdraw(id);
        withdrawn += left;
        while (mine->load() < copies - left) std::this_thread::yield();
      }
    });
  for (std::thread& t : owners) t.join();
  wait_until_idle(pool);
  CHECK(ran + withdrawn >= 4 * rounds && ran + withdrawn <= 12 * rounds);
  CHECK(pool.counts().waiting == 0 && pool.counts().threads <= 3);
}
