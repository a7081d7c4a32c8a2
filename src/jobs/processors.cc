#include "processors.h"
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <thread>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#include <cerrno>
#endif

namespace diralign {

namespace {

int affinity_processors() {
#if defined(__linux__)
  // The kernel refuses a set that is smaller than its own, and does not tell how large that is.
  for (size_t thousands = 1; thousands <= 1024; thousands *= 2) {
    std::vector<cpu_set_t> set(thousands);
    const size_t bytes = thousands * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) == 0) return CPU_COUNT_S(bytes, set.data());
    if (errno != EINVAL) break;
  }
#endif
  return int(std::thread::hardware_concurrency());
}

std::optional<std::string> read_file(const std::string& path) {
  // The C library's files: those of C++ bring a newer glibc into the addon (fstat64).
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "r"), std::fclose);
  if (!file) return std::nullopt;
  std::string text;
  char part[4096];
  for (size_t read; (read = std::fread(part, 1, sizeof part, file.get())) > 0;)
    text.append(part, read);
  return std::ferror(file.get()) ? std::nullopt : std::optional(text);
}

/// What is behind the last separator counts where it is not empty. No stream reads the text: those
/// bring a quarter of a megabyte of locales into the addon.
std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
  }
  return parts;
}

bool contains(const std::vector<std::string>& list, const char* word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

/// Spaces in paths of mountinfo are \040, and so on.
std::string unescaped(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size(); i++) {
    const bool octal =
        text[i] == '\\' && i + 3 < text.size() &&
        std::all_of(&text[i + 1], &text[i + 4], [](char c) { return c >= '0' && c <= '7'; });
    result += octal ? char(std::stoi(text.substr(i + 1, 3), nullptr, 8)) : text[i];
    if (octal) i += 3;
  }
  return result;
}

enum class Version { v1, v2 };

/// A file system of control groups: `root`, a group, is seen at `point`.
struct Mount {
  Version version;
  std::string root, point;
};

/// man 5 proc: "36 35 98:0 ROOT POINT rw,noatime master:1 - TYPE SOURCE OPTIONS", with any number
/// of fields before the dash.
std::optional<Mount> read_mount(const std::string& line) {
  const std::vector<std::string> fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (dash - fields.begin() < 5 || fields.end() - dash < 4) return std::nullopt;
  const std::string &type = dash[1], &options = dash[3];
  if (type != "cgroup2" && !(type == "cgroup" && contains(split(options, ','), "cpu")))
    return std::nullopt;
  return Mount{type == "cgroup2" ? Version::v2 : Version::v1, unescaped(fields[3]),
               unescaped(fields[4])};
}

/// man 7 cgroups: "HIERARCHY:CONTROLLERS:PATH"; version 2 names no controllers.
std::optional<std::string> group_of(const std::string& groups, Version version) {
  for (const std::string& line : split(groups, '\n')) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool found =
        version == Version::v2 ? controllers.empty() : contains(split(controllers, ','), "cpu");
    if (found) return line.substr(second + 1);
  }
  return std::nullopt;
}

/// Processors, whole or not, that the quota of one group keeps busy.
std::optional<double> quota_of(const ReadFile& read, Version version, const std::string& folder) {
  // "QUOTA PERIOD", where QUOTA may be "max"; version 1 has a file for each, and -1 for no quota.
  const std::string text = version == Version::v2
                               ? read(folder + "/cpu.max").value_or("")
                               : read(folder + "/cpu.cfs_quota_us").value_or("") + " " +
                                     read(folder + "/cpu.cfs_period_us").value_or("");
  const std::vector<std::string> words = split(text, ' ');
  if (words.size() < 2) return std::nullopt;
  auto number = [](const std::string& word) {
    int64_t value = 0;
    std::from_chars(word.data(), word.data() + word.size(), value);
    return value;
  };
  const int64_t quota = number(words[0]), period = number(words[1]);
  if (quota <= 0 || period <= 0) return std::nullopt;
  return double(quota) / double(period);
}

/// `group` as seen from `root`, "" where they are the same; nothing where it is not within.
std::optional<std::string> below(const std::string& root, const std::string& group) {
  const std::string prefix = root == "/" ? "" : root;
  if (group.compare(0, prefix.size(), prefix) != 0 || group.find("/..") != std::string::npos)
    return std::nullopt;
  const std::string rest = group.substr(prefix.size());
  if (rest == "/") return "";
  return rest.empty() || rest[0] == '/' ? std::optional(rest) : std::nullopt;
}

}  // namespace

std::optional<int> quota_processors(const ReadFile& read) {
  const std::string groups = read("/proc/self/cgroup").value_or("");
  double least = std::numeric_limits<double>::infinity();
  for (const std::string& line : split(read("/proc/self/mountinfo").value_or(""), '\n')) {
    const std::optional<Mount> mount = read_mount(line);
    const std::optional<std::string> group =
        mount ? group_of(groups, mount->version) : std::nullopt;
    const std::optional<std::string> path = group ? below(mount->root, *group) : std::nullopt;
    if (!path) continue;
    // From the process's own group to the outermost that is seen here.
    for (std::string inner = *path;; inner.resize(inner.rfind('/'))) {
      least = std::min(least, quota_of(read, mount->version, mount->point + inner).value_or(least));
      if (inner.empty()) break;
    }
  }
  if (std::isinf(least)) return std::nullopt;
  return int(std::min(std::ceil(least), 1e6));
}

int available_processors() {
  const int allowed = std::max(1, affinity_processors());
  return std::min(allowed, quota_processors(read_file).value_or(allowed));
}

}  // namespace diralign
