// Work that several threads share.

#ifndef ACON_MOMENT_THREADS_H
#define ACON_MOMENT_THREADS_H

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

// GOMP_parallel of an OpenMP runtime: runs a function with its argument on the runtime's threads, as
// many as it has been set to (0).
typedef void (*Team)(void (*)(void*), void*, unsigned, unsigned);

namespace {

// Parts of the work for each thread: cores that others use, too, take fewer.
constexpr int64_t PARTS = 4;

// Calls work(begin, end) until all `pieces` have been taken, by a team if there are to be 2 `threads` or
// more. torch's own team has just worked and still waits actively: other threads would compete with it
// for the cores. Without a team threads are started, as many as can be had.
template <class Work>
void spread(int64_t pieces, int threads, Team team, const Work& work) {
  if (threads < 2) return work(0, pieces);
  std::atomic<int64_t> next{0};
  const int64_t step = (pieces - 1) / (PARTS * threads) + 1;
  auto take = [&] {
    for (int64_t at; (at = next.fetch_add(step)) < pieces;)
      work(at, at + step < pieces ? at + step : pieces);
  };
  if (team)
    return team([](void* given) { (*static_cast<decltype(take)*>(given))(); }, &take, 0, 0);
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back(take);
  } catch (const std::system_error&) {
  }
  take();
  for (std::thread& other : others) other.join();
}

}  // namespace

#endif
