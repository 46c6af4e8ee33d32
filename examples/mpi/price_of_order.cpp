// SPDX-License-Identifier: MIT
// What does the fixed order of sums cost, and do messages move beside backward? `mpirun -n 2
// price_of_order [TURNS]` adds gradients of 8.5 million parameters with reduction::fixed_order and
// reduction::mpi by turns, as a step does, but computes nothing. Then it sends a layer's gradients
// at once, or posts them and waits for them 10 ms later. Figures are milliseconds of a rank's
// processor, the least of all turns, of the rank that has most. A rank that waits uses its
// processor, so take them on an idle machine, with a processor for each rank.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <linnet/model/decoder.hpp>
#include <linnet/mpi.hpp>

namespace ln = linnet;

using Model = ln::decoder<ln::decoder_shape{.d_model = 256,
                                            .d_ff = 704,
                                            .heads = 8,
                                            .kv_heads = 8,
                                            .layers = 8,
                                            .vocabulary = 8192,
                                            .context = 64}>;

double processor_ms() {
  return 1e3 * static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}
/// The least time of several, of the rank that has most.
struct least_time {
  double ms = 1e300;

  void take(double one) { ms = (std::min)(ms, one); }
  double of_ranks() const {
    double most = 0;
    MPI_Allreduce(&ms, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return most;
  }
};

/// Sums of gradients in one of the orders.
template <class Sums, class Block>
class adder {
 public:
  adder(ln::communicator& ranks, const ln::distributed_options& how)
      : memory_(bytes(ranks, how)), arena_(memory_.data(), memory_.size()) {
    sums_ = Sums::place(arena_, ranks.rank(), ranks.size(), how);
    sums_.start(ranks);
  }
  /// Adds the gradients of all parts; `make` stands for a backward pass.
  template <class Make>
  void run(Block& gradient, Make&& make) {
    MPI_Barrier(MPI_COMM_WORLD);
    const double begun = processor_ms();
    if (!sums_.add(gradient, make)) MPI_Abort(MPI_COMM_WORLD, 1);
    least_.take(processor_ms() - begun);
  }
  double ms() const { return least_.of_ranks(); }

 private:
  static ln::index bytes(ln::communicator& ranks, const ln::distributed_options& how) {
    ln::arena counted;
    (void)Sums::place(counted, ranks.rank(), ranks.size(), how);
    return counted.peak();
  }
  ln::memory_block memory_;
  ln::arena arena_;
  Sums sums_{};
  least_time least_;
};

/// The line of a stage: both orders by turns.
template <class Sums, class Block, class Make>
void compare_orders(const char* name, ln::communicator& ranks, ln::index parts, int turns,
                    Block& gradient, Make&& make) {
  adder<Sums, Block> fixed(ranks, {.parts = parts});
  adder<Sums, Block> mpi(ranks, {.parts = parts, .sums = ln::reduction::mpi});
  for (int turn = 0; turn < turns; ++turn) {
    fixed.run(gradient, make);
    mpi.run(gradient, make);
  }
  const double ms = fixed.ms(), by_mpi = mpi.ms();
  if (ranks.rank() == 0)
    std::printf("%-12s  %5td  %11.1f  %6.1f  %5.2f\n", name, parts, ms, by_mpi, ms / by_mpi);
}

/// Sends a layer's gradients: at once, or posted and waited for after a pause, in which they may be
/// asked for. Gives the time inside of MPI.
double send_layer(std::vector<float>& from, std::vector<float>& to, int each, bool posts,
                  int tests) {
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  std::vector<int> counts(static_cast<std::size_t>(ranks), each), begins;
  for (int r = 0; r < ranks; ++r) begins.push_back(r * each);
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Request waits = MPI_REQUEST_NULL;
  const double begun = processor_ms();
  MPI_Ialltoallv(from.data(), counts.data(), begins.data(), MPI_FLOAT, to.data(), counts.data(),
                 begins.data(), MPI_FLOAT, MPI_COMM_WORLD, &waits);
  for (int pause = 0; posts && pause <= tests; ++pause) {
    const timespec some{0, 10'000'000 / (tests + 1)};
    nanosleep(&some, nullptr);
    int done = 0;
    if (pause < tests) MPI_Test(&waits, &done, MPI_STATUS_IGNORE);
  }
  MPI_Wait(&waits, MPI_STATUS_IGNORE);
  return processor_ms() - begun;
}
void compare_overlap(int rank, int size, int turns) {
  if (rank == 0) std::printf("\nMB of a layer  at once  posted  posted, asked for 4 times\n");
  for (const int values : {65536, 262144, 1048576}) {
    std::vector<float> from(static_cast<std::size_t>(values), 1.0f), to = from;
    least_time of[3];
    for (int turn = 0; turn < turns; ++turn)
      for (int way = 0; way < 3; ++way)
        of[way].take(send_layer(from, to, values / size, way > 0, way == 2 ? 4 : 0));
    const double ms[] = {of[0].of_ranks(), of[1].of_ranks(), of[2].of_ranks()};
    if (rank == 0)
      std::printf("%13.2f  %7.2f  %6.2f  %25.2f\n", 4e-6 * values, ms[0], ms[1], ms[2]);
  }
}

int main(int count, char** arguments) {
  int level = 0;
  MPI_Init_thread(&count, &arguments, MPI_THREAD_SERIALIZED, &level);
  const int turns = (std::max)(1, count > 1 ? std::atoi(arguments[1]) : 20);
  {
    auto ranks = ln::communicator::open(MPI_COMM_WORLD);
    if (!ranks) {
      std::fprintf(stderr, "%s\n", ranks.error().message().c_str());
      MPI_Abort(MPI_COMM_WORLD, 1);
    }
    if (ranks->rank() == 0) std::printf("              parts  fixed order     MPI  ratio\n");
    for (const ln::index parts : {ranks->size(), 4 * ranks->size()}) {
      ln::gradients<Model> whole;
      compare_orders<ln::detail::gradient_sums<Model, float>>("zero<0>, <1>", *ranks, parts, turns,
                                                              whole, [](ln::index) {});
      using units = ln::detail::unit_gradients<Model, float>;
      units by_layer;
      compare_orders<ln::detail::unit_sums<Model, float>>(
          "zero<2>", *ranks, parts, turns, by_layer, [&](ln::index) {
            for (std::size_t i = units::units.size(); i-- > 0;)
              if (units::units[i].in_layer())
                by_layer.tap->call(by_layer.tap->object, {}, units::units[i].layer);
          });
    }
    compare_overlap(static_cast<int>(ranks->rank()), static_cast<int>(ranks->size()), turns);
  }
  MPI_Finalize();
}
