// SPDX-License-Identifier: MIT
// How well would training use a cluster? The program measures how fast one processor multiplies,
// takes the work and the parameters of each block of two models from their types, and plays a step
// on up to 1,024 ranks for each stage of sharing. Then the ranks of a node share out values among
// them, and each node has all (hybrid sharding). `simulated_cluster LATENCY BANDWIDTH SEQUENCES
// CORES RANKS INSIDE` has another network (microseconds, gigabytes a second), batch, number of
// cores of a rank and of ranks of a node, and bandwidth inside nodes.

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

using decoder_300m = ln::decoder<ln::decoder_shape{.d_model = 1024,
                                                   .d_ff = 2304,
                                                   .heads = 16,
                                                   .kv_heads = 16,
                                                   .layers = 24,
                                                   .vocabulary = 32000,
                                                   .context = 512}>;
constexpr ln::index tokens = 512;  // of a sequence

/// Floating-point operations that one processor does in a second of its time: products of 128 rows
/// with a matrix of `width` inputs and outputs.
double measured_speed(ln::index width) {
  constexpr ln::index rows = 128;
  using matrix = ln::ops::packed_matrix<float, ln::storage::f32>;
  const auto bytes = [](ln::index values) { return values * ln::index{sizeof(float)}; };
  const ln::memory_block weights(bytes(width * width)), panels(bytes(matrix::size(width, width)));
  const ln::memory_block x(bytes(rows * width)), y(bytes(rows * width));
  const matrix w{static_cast<const float*>(panels.data())};
  ln::ops::execution on;
  on.level = ln::ops::best();
  ln::ops::pack(on, width, width,
                ln::matrix_ref<ln::storage::f32>{static_cast<float*>(weights.data())}, w);
  double operations = 0;
  const std::clock_t begun = std::clock();
  do {
    ln::ops::matmul(on, rows, width, width, static_cast<const float*>(x.data()), w,
                    static_cast<float*>(y.data()));
    operations += 2.0 * static_cast<double>(rows * width * width);
  } while (std::clock() - begun < CLOCKS_PER_SEC / 20);
  return operations * CLOCKS_PER_SEC / static_cast<double>(std::clock() - begun);
}

/// The costs of `count` layers that do so many operations forward, and twice as many backward.
void add(std::vector<ln::simulated_layer>& to, ln::index count, ln::index operations,
         ln::index parameters, double speed) {
  const double seconds = static_cast<double>(operations) / speed;
  to.insert(to.end(), static_cast<std::size_t>(count),
            {seconds, 2 * seconds, static_cast<double>(parameters)});
}
std::vector<ln::simulated_layer> layers_of_t5(ln::index sequences, double speed) {
  using model = ln::zoo::t5_base;
  const ln::limits l{.batch = sequences};
  const auto e = ln::call_shape_for(l, ln::purpose::scoring, tokens);
  const auto d = ln::call_shape_for(l, ln::purpose::scoring, tokens / 4, tokens);
  constexpr ln::index n = model::shape.encoder_layers, m = model::shape.decoder_layers;
  std::vector<ln::simulated_layer> all;
  add(all, n, model::encoder::flops(e) / n, ln::count_parameters<model::encoder>() / n, speed);
  add(all, m, model::decoder::flops(d) / m, ln::count_parameters<model::decoder>() / m, speed);
  add(all, 1, 2 * d.rows() * model::d * model::vocabulary, model::d * model::vocabulary, speed);
  return all;
}
std::vector<ln::simulated_layer> layers_of_decoder(ln::index sequences, double speed) {
  using model = decoder_300m;
  const auto e = ln::call_shape_for({.batch = sequences}, ln::purpose::scoring, tokens);
  constexpr ln::index n = model::shape.layers;
  std::vector<ln::simulated_layer> all;
  add(all, n, model::blocks::flops(e) / n, ln::count_parameters<model::blocks>() / n, speed);
  add(all, 1, 2 * e.rows() * model::d * model::vocabulary, model::d * model::vocabulary, speed);
  return all;
}

void print(const char* name, const std::vector<ln::simulated_layer>& layers,
           const ln::simulated_network& net, double speed) {
  double parameters = 0, seconds = 0;
  for (const ln::simulated_layer& one : layers) {
    parameters += one.parameters;
    seconds += one.forward + one.backward;
  }
  std::printf("\n%s: %.0f million parameters, %.2f s of layers in a step, %s\n", name,
              parameters / 1e6, seconds, net.way == ln::topology::ring ? "ring" : "tree");
  std::printf("%6s  %-39s  %-39s  %s\n", "", "efficiency, waiting for messages", "with overlap",
              "GB of a rank by the paper");
  std::printf("%6s", "ranks");
  for (int part = 0; part < 3; ++part)
    for (int stage = 0; stage <= 3; ++stage) std::printf("  zero<%d>", stage);
  std::printf("\n");
  for (ln::index ranks = 1; ranks <= 1024; ranks *= 4) {
    std::printf("%6td", ranks);
    for (const bool overlaps : {false, true})
      for (int stage = 0; stage <= 3; ++stage) {
        // The optimizer does some twenty operations with a parameter, at an eighth of the speed.
        const ln::simulated_step how{stage, overlaps, 160 / speed};
        std::printf("  %7.3f", ln::simulate(layers, net, ranks, how).efficiency());
      }
    for (int stage = 0; stage <= 3; ++stage)
      std::printf("  %7.2f",
                  ln::costs_of_zero(stage, parameters, static_cast<double>(ranks)).bytes / 1e9);
    std::printf("\n");
  }
}

/// The same on nodes: values that all ranks share out, and that those of a node do. One ring
/// through all ranks leaves each node once, so it has the network between nodes to itself.
void print_nodes(const char* name, const std::vector<ln::simulated_layer>& layers,
                 ln::simulated_nodes cluster, double speed) {
  double parameters = 0;
  for (const ln::simulated_layer& one : layers) parameters += one.parameters;
  std::printf("\n%s on nodes of %td ranks, shared out by all ranks or inside nodes\n", name,
              cluster.ranks);
  std::printf("%6s  %-37s  %-37s  %-17s  %s\n", "", "efficiency, waiting for messages",
              "with overlap", "GB from a node", "GB of a rank, zero<3>");
  std::printf("%6s", "ranks");
  for (int part = 0; part < 2; ++part) std::printf("  zero<2>   inside  zero<3>   inside");
  std::printf("  zero<3>   inside  zero<3>   inside\n");
  for (cluster.nodes = 1; cluster.nodes * cluster.ranks <= 1024; cluster.nodes *= 4) {
    const ln::index ranks = cluster.nodes * cluster.ranks;
    std::printf("%6td", ranks);
    ln::simulated_time all, inside;
    const auto& net = cluster.nodes > 1 ? cluster.between : cluster.inside;
    for (const bool overlaps : {false, true})
      for (const int stage : {2, 3}) {
        const ln::simulated_step how{stage, overlaps, 160 / speed};
        all = ln::simulate(layers, net, ranks, how);
        inside = ln::simulate(layers, cluster, how);
        std::printf("  %7.3f  %7.3f", all.efficiency(), inside.efficiency());
      }
    const double sharers = static_cast<double>(cluster.ranks);
    std::printf("  %7.2f  %7.2f", cluster.nodes > 1 ? all.inside.bytes / 1e9 : 0,
                sharers * inside.between.bytes / 1e9);
    std::printf("  %7.2f  %7.2f\n",
                ln::costs_of_zero(3, parameters, static_cast<double>(ranks)).bytes / 1e9,
                ln::costs_of_zero(3, parameters, sharers).bytes / 1e9);
  }
}

int main(int count, char** words) {
  const auto number = [&](int i, double usual) { return count > i ? std::atof(words[i]) : usual; };
  const double latency = number(1, 25) * 1e-6, bandwidth = number(2, 1.25) * 1e9;
  const auto sequences = static_cast<ln::index>(number(3, 8));
  const double cores = number(4, 16), inside = number(6, 12.5) * 1e9;
  const auto ranks_of_node = static_cast<ln::index>(number(5, 8));
  if (!(latency >= 0 && bandwidth > 0 && sequences > 0 && cores > 0 && ranks_of_node > 0 &&
        inside > 0)) {
    std::printf("simulated_cluster LATENCY BANDWIDTH SEQUENCES CORES RANKS INSIDE, all above 0\n");
    return 1;
  }
  const double speed = measured_speed(768) * cores;
  std::printf("Measured: %.1f GFLOP/s of a core; %.0f cores of a rank. Simulated: all else.\n",
              speed / cores / 1e9, cores);
  std::printf("Network: %.1f us, %.1f GB/s. Each rank: %td sequences of %td tokens in a step.\n",
              latency * 1e6, bandwidth / 1e9, sequences, tokens);
  for (const ln::topology way : {ln::topology::ring, ln::topology::tree}) {
    const ln::simulated_network net{latency, 1 / bandwidth, way};
    print("T5-Base", layers_of_t5(sequences, speed), net, speed);
    print("Decoder", layers_of_decoder(sequences, speed), net, speed);
  }
  const ln::simulated_nodes nodes{
      .inside = {latency, 1 / inside}, .between = {latency, 1 / bandwidth}, .ranks = ranks_of_node};
  std::printf("\nInside nodes: %.1f us, %.1f GB/s of each rank.\n", latency * 1e6, inside / 1e9);
  print_nodes("T5-Base", layers_of_t5(sequences, speed), nodes, speed);
  print_nodes("Decoder", layers_of_decoder(sequences, speed), nodes, speed);
}
