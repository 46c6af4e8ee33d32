// SPDX-License-Identifier: MIT
// What does the fixed order of sums cost, and what would messages beside backward save? `mpirun -n
// 2 price_of_order [TURNS]` takes steps with reduction::fixed_order and reduction::mpi by turns,
// and prints the processor time of a rank in each. Then it plays a backward pass whose layers'
// gradients are sent at once, or while the next layer is computed. Figures are the least of all
// turns. A rank that waits uses its processor, so take them on an idle machine, with a processor
// for each rank.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <linnet/linnet.hpp>
#include <linnet/mpi.hpp>

namespace ln = linnet;

using Model = ln::decoder<ln::decoder_shape{.d_model = 256,
                                            .d_ff = 704,
                                            .heads = 8,
                                            .kv_heads = 8,
                                            .layers = 8,
                                            .vocabulary = 8192,
                                            .context = 64}>;
constexpr ln::index length = 64;

double processor_ms() {
  return 1e3 * static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}
double clock_ms() { return 1e3 * MPI_Wtime(); }
/// The largest number that a rank has.
double most_of_ranks(double own) {
  double most = 0;
  MPI_Allreduce(&own, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  return most;
}
/// The least of two times of one thing: of the processor, and of the clock.
struct least_time {
  double processor = 1e300, clock = 1e300;

  template <class F>
  void take(F&& f) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double begun = clock_ms(), used = processor_ms();
    f();
    processor = (std::min)(processor, processor_ms() - used);
    clock = (std::min)(clock, clock_ms() - begun);
  }
};

/// Steps of a stage in both orders, and its line.
template <int Stage>
void compare_orders(ln::communicator& ranks, ln::index parts, int turns) {
  using trainer = ln::distributed_trainer<Model, ln::adamw, ln::zero<Stage>>;
  const std::vector<ln::token> tokens(static_cast<std::size_t>(parts * length), 7);
  double ms[2] = {};
  {
    ln::weights<Model> w[2];
    std::vector<trainer> both;
    for (int i = 0; i < 2; ++i) {
      ln::initialize(w[i], ln::seed{1});
      auto t = trainer::open(
          w[i], ranks, {.batch = 1, .target = length}, {}, {},
          {.parts = parts, .sums = i == 0 ? ln::reduction::fixed_order : ln::reduction::mpi});
      if (!t) {
        std::fprintf(stderr, "%s\n", t.error().message().c_str());
        MPI_Abort(MPI_COMM_WORLD, 1);
      }
      both.push_back(std::move(*t));
    }
    least_time of[2];
    for (int turn = 0; turn < turns; ++turn)
      for (int i = 0; i < 2; ++i) {
        const auto [first, last] = both[static_cast<std::size_t>(i)].part_of(parts);
        of[i].take([&, from = first, to = last] {
          (void)both[static_cast<std::size_t>(i)].step(
              {tokens.data() + from * length, tokens.data() + from * length, to - from, length});
        });
      }
    for (int i = 0; i < 2; ++i) ms[i] = most_of_ranks(of[i].processor);
  }
  if (ranks.rank() == 0)
    std::printf("zero<%d>  %5td  %11.1f  %6.1f  %5.2f\n", Stage, parts, ms[0], ms[1],
                ms[0] / ms[1]);
}

/// A backward pass of layers whose gradients go to the other ranks.
class played_backward {
 public:
  static constexpr int layers = 8;

  explicit played_backward(ln::index values)
      : values_(values), from_(sized(layers * values)), to_(sized(layers * values)) {
    int ranks = 1;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (int r = 0; r < ranks; ++r) {
      counts_.push_back(static_cast<int>(values / ranks));
      begins_.push_back(r * static_cast<int>(values / ranks));
    }
  }
  enum class way { none, at_once, posted, posted_and_tested };
  void run(way how) {
    MPI_Request waits = MPI_REQUEST_NULL;
    for (int layer = 0; layer < layers; ++layer) {
      for (int piece = 0; piece < 8; ++piece) {
        compute();
        int done = 0;
        if (how == way::posted_and_tested) MPI_Test(&waits, &done, MPI_STATUS_IGNORE);
      }
      if (how == way::none) continue;
      MPI_Wait(&waits, MPI_STATUS_IGNORE);
      MPI_Ialltoallv(from_.data() + layer * values_, counts_.data(), begins_.data(), MPI_FLOAT,
                     to_.data() + layer * values_, counts_.data(), begins_.data(), MPI_FLOAT,
                     MPI_COMM_WORLD, &waits);
      if (how == way::at_once) MPI_Wait(&waits, MPI_STATUS_IGNORE);
    }
    MPI_Wait(&waits, MPI_STATUS_IGNORE);
  }

 private:
  static std::vector<float> sized(ln::index n) {
    return std::vector<float>(static_cast<std::size_t>(n), 1.0f);
  }
  /// An eighth of a layer's work, in the processor's caches.
  void compute() {
    for (int round = 0; round < 60; ++round)
      for (float& x : work_) x = 0.999f * x + 0.001f;
  }

  ln::index values_;
  std::vector<float> from_, to_, work_ = sized(4096);
  std::vector<int> counts_, begins_;
};

void compare_overlap(int rank, int turns) {
  using way = played_backward::way;
  if (rank == 0)
    std::printf("\nMB of a layer  computed alone  sent at once  posted  posted and tested  (ms)\n");
  for (const ln::index values : {ln::index{65536}, ln::index{262144}, ln::index{1048576}}) {
    played_backward pass(values);
    least_time of[4];
    for (int turn = 0; turn < turns; ++turn)
      for (const way how : {way::none, way::at_once, way::posted, way::posted_and_tested})
        of[static_cast<int>(how)].take([&] { pass.run(how); });
    double ms[4];
    for (int i = 0; i < 4; ++i) ms[i] = most_of_ranks(of[i].clock);
    if (rank == 0)
      std::printf("%13.2f  %14.2f  %12.2f  %6.2f  %17.2f\n", 4e-6 * static_cast<double>(values),
                  ms[0], ms[1], ms[2], ms[3]);
  }
}

int main(int count, char** arguments) {
  int level = 0;
  MPI_Init_thread(&count, &arguments, MPI_THREAD_SERIALIZED, &level);
  const int turns = (std::max)(1, count > 1 ? std::atoi(arguments[1]) : 10);
  {
    auto ranks = ln::communicator::open(MPI_COMM_WORLD);
    if (!ranks) {
      std::fprintf(stderr, "%s\n", ranks.error().message().c_str());
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
    if (ranks->rank() == 0)
      std::printf(
          "Processor time of a rank in a step, ms\n         parts  fixed order     MPI  ratio\n");
    for (const ln::index parts : {ranks->size(), 4 * ranks->size()}) {
      compare_orders<0>(*ranks, parts, turns);
      compare_orders<1>(*ranks, parts, turns);
      compare_orders<2>(*ranks, parts, turns);
    }
    compare_overlap(static_cast<int>(ranks->rank()), 5 * turns);
  }
  MPI_Finalize();
}
