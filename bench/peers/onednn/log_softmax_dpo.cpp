// DPO on oneDNN's log-softmax, forward and backward, all buffers reused. Driven by
// bench/peers/process-peer.mjs.
//
// Arguments: directory, sequences, tokens, vocab, threads, beta. After a first pass it prints one
// line of JSON; then, for each line "go" on its input, the milliseconds of one pass.
#include <omp.h>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>
#include "dnnl.hpp"

namespace {

double memory(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::atof(line.c_str() + field.size() + 1) / 1024;
  }
  return NAN;
}

template <class T>
std::vector<T> load(const std::string& file, size_t count) {
  std::vector<T> values(count);
  std::ifstream(file, std::ios::binary)
      .read(reinterpret_cast<char*>(values.data()), std::streamsize(count * sizeof(T)));
  return values;
}

}  // namespace

int main(int, char** argv) {
  using tag = dnnl::memory::format_tag;
  const std::string directory = argv[1];
  const int64_t sequences = std::atoll(argv[2]), tokens = std::atoll(argv[3]),
                vocab = std::atoll(argv[4]);
  omp_set_num_threads(std::atoi(argv[5]));
  const double beta = std::atof(argv[6]);
  const int64_t rows = sequences * tokens, pairs = sequences / 2;
  const size_t elements = size_t(rows) * size_t(vocab);

  std::vector<float> logits = load<float>(directory + "/logits", elements);
  const std::vector<int32_t> labels = load<int32_t>(directory + "/labels", size_t(rows));
  const std::vector<double> reference = load<double>(directory + "/reference", size_t(sequences));
  const double before = memory("VmRSS");

  // Zero but for the labels, which are written anew in each pass.
  std::vector<float> logp(elements), diff_logp(elements), gradient(elements);
  dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::memory::desc matrix({rows, vocab}, dnnl::memory::data_type::f32, tag::ab);
  const dnnl::logsoftmax_forward::primitive_desc forward_plan(
      {dnnl::prop_kind::forward_training, matrix, 1}, engine);
  const dnnl::logsoftmax_forward forward(forward_plan);
  const dnnl::logsoftmax_backward backward(
      dnnl::logsoftmax_backward::primitive_desc({matrix, matrix, 1}, engine, forward_plan));
  dnnl::memory source(matrix, engine, logits.data()), destination(matrix, engine, logp.data()),
      diff_destination(matrix, engine, diff_logp.data()),
      diff_source(matrix, engine, gradient.data());

  const auto one_pass = [&] {
    forward.execute(stream, {{DNNL_ARG_SRC, source}, {DNNL_ARG_DST, destination}});
    stream.wait();
    const auto label_at = [&](int64_t row) {
      return size_t(row) * size_t(vocab) + size_t(labels[size_t(row)]);
    };
    const auto log_ratio = [&](int64_t s) {
      double sum = -reference[size_t(s)];
      for (int64_t t = 0; t < tokens; ++t) sum += double(logp[label_at(s * tokens + t)]);
      return sum;
    };
    double loss = 0;
    for (int64_t i = 0; i < pairs; ++i) {
      const double u = beta * (log_ratio(i) - log_ratio(i + pairs));
      loss += (std::log1p(std::exp(-std::fabs(u))) + std::fmax(-u, 0)) / double(pairs);
      const float slope = float(beta / (1 + std::exp(u)) / double(pairs));
      for (int64_t t = 0; t < tokens; ++t) {
        diff_logp[label_at(i * tokens + t)] = -slope;
        diff_logp[label_at((i + pairs) * tokens + t)] = slope;
      }
    }
    backward.execute(stream, {{DNNL_ARG_DST, destination},
                              {DNNL_ARG_DIFF_DST, diff_destination},
                              {DNNL_ARG_DIFF_SRC, diff_source}});
    stream.wait();
    return loss;
  };

  const double loss = one_pass();
  double size = 0;
  for (float g : gradient) size += double(std::fabs(g));
  const dnnl_version_t* version = dnnl_version();
  std::printf(
      "{\"version\":\"oneDNN %d.%d.%d\",\"loss\":%.17g,\"gradientSum\":%.17g,\"extraMiB\":%.1f}\n",
      version->major, version->minor, version->patch, loss, size, memory("VmHWM") - before);
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    const auto start = std::chrono::steady_clock::now();
    one_pass();
    std::printf("%.6f\n",
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                    .count());
    std::fflush(stdout);
  }
}
