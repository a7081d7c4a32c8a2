// Quotas of control groups, from the texts that the kernel gives.
#include "jobs/processors.h"
#include <algorithm>
#include <map>
#include <thread>
#include "check.h"

using namespace diralign;

namespace {

using Files = std::map<std::string, std::string>;

/// 0: no quota.
int quota(const Files& files) {
  return quota_processors([&](const std::string& path) -> std::optional<std::string> {
           const auto found = files.find(path);
           return found == files.end() ? std::nullopt : std::optional(found->second);
         })
      .value_or(0);
}

constexpr const char* cgroup = "/proc/self/cgroup";
constexpr const char* mountinfo = "/proc/self/mountinfo";

const std::string v2_mount =
    "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const std::string other_mounts =
    "23 28 0:21 / /sys rw shared:7 - sysfs sysfs rw\n"
    "28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n"
    "a line that is none\n";
/// Version 1 as Docker has it: the container's group is all that is mounted.
const std::string v1_mounts =
    "41 40 0:35 /docker/0a1b /sys/fs/cgroup/cpuset ro - cgroup cgroup rw,cpuset\n"
    "42 40 0:36 /docker/0a1b /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:11 shared:3 - cgroup "
    "cgroup rw,cpu,cpuacct\n"
    "43 40 0:37 /docker/0a1b /sys/fs/cgroup/cpuacct ro - cgroup cgroup rw,cpuacct\n";
const std::string v1_groups =
    "12:cpuset:/docker/0a1b\n3:cpu,cpuacct:/docker/0a1b\n1:name=systemd:/docker/0a1b\n0::/docker/"
    "0a1b\n";

Files v1(const std::string& quota_us, const std::string& period_us) {
  const std::string folder = "/sys/fs/cgroup/cpu,cpuacct";
  return {{cgroup, v1_groups},
          {mountinfo, other_mounts + v1_mounts},
          {folder + "/cpu.cfs_quota_us", quota_us},
          {folder + "/cpu.cfs_period_us", period_us}};
}

Files v2(const std::string& max) {
  return {
      {cgroup, "0::/\n"}, {mountinfo, other_mounts + v2_mount}, {"/sys/fs/cgroup/cpu.max", max}};
}

}  // namespace

TEST(processors_of_this_process) {
  CHECK(available_processors() >= 1);
  CHECK(available_processors() <= std::max(1, int(std::thread::hardware_concurrency())));
}

TEST(processors_version_2) {
  CHECK(quota(v2("max 100000\n")) == 0);
  CHECK(quota(v2("200000 100000\n")) == 2);
  CHECK(quota(v2("150000 100000\n")) == 2);  // rounded up
  CHECK(quota(v2("200001 100000\n")) == 3);
  CHECK(quota(v2("10000 100000\n")) == 1);  // less than one
  CHECK(quota(v2("1000 1000000\n")) == 1);
  CHECK(quota(v2("9223372036854775807 1\n")) == 1000000);
}

TEST(processors_version_1) {
  CHECK(quota(v1("-1\n", "100000\n")) == 0);
  CHECK(quota(v1("50000\n", "100000\n")) == 1);
  CHECK(quota(v1("400000\n", "100000\n")) == 4);
  CHECK(quota(v1("25000\n", "10000\n")) == 3);
}

TEST(processors_nested_groups) {
  // A group has no more than any of those around it.
  Files files{{cgroup, "0::/kubepods.slice/pod1/app\n"},
              {mountinfo, v2_mount},
              {"/sys/fs/cgroup/kubepods.slice/cpu.max", "600000 100000\n"},
              {"/sys/fs/cgroup/kubepods.slice/pod1/cpu.max", "300000 100000\n"},
              {"/sys/fs/cgroup/kubepods.slice/pod1/app/cpu.max", "max 100000\n"},
              {"/sys/fs/cgroup/kubepods.slice/pod2/cpu.max", "100000 100000\n"}};
  CHECK(quota(files) == 3);
  files["/sys/fs/cgroup/kubepods.slice/pod1/app/cpu.max"] = "200000 100000\n";
  CHECK(quota(files) == 2);
  files["/sys/fs/cgroup/kubepods.slice/cpu.max"] = "100000 100000\n";
  CHECK(quota(files) == 1);
  // A group whose controller is off has no file.
  files.erase("/sys/fs/cgroup/kubepods.slice/pod1/app/cpu.max");
  CHECK(quota(files) == 1);
}

TEST(processors_of_the_own_group) {
  // Only a part of the tree is mounted, as in a container without a namespace of its own.
  Files files{{cgroup, "0::/docker/0a1b/inner\n"},
              {mountinfo, "29 23 0:26 /docker/0a1b /sys/fs/cgroup rw - cgroup2 cgroup rw\n"},
              {"/sys/fs/cgroup/cpu.max", "300000 100000\n"},
              {"/sys/fs/cgroup/inner/cpu.max", "200000 100000\n"}};
  CHECK(quota(files) == 2);
  // A group beside what is mounted, one whose name only begins like that, and one outside of the
  // namespace: theirs is not ours.
  for (const char* group :
       {"0::/docker/ffff\n", "0::/docker/0a1bc\n", "0::/../0a1b\n", "0::/docker/0a1b/../../x\n"}) {
    files[cgroup] = group;
    CHECK(quota(files) == 0, "%s", group);
  }
  // Paths with spaces and colons.
  CHECK(quota({{cgroup, "0::/a: b/c\n"},
               {mountinfo, "29 23 0:26 /a:\\040b /mnt/control\\040groups rw - cgroup2 none rw\n"},
               {"/mnt/control groups/c/cpu.max", "500000 100000\n"}}) == 5);
}

TEST(processors_both_versions) {
  // A hybrid system: the processor's controller is with one of them, or, on the way from one to the
  // other, the least counts.
  Files files = v1("400000\n", "100000\n");
  files[mountinfo] += "50 40 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
  CHECK(quota(files) == 4);
  files["/sys/fs/cgroup/unified/docker/0a1b/cpu.max"] = "100000 100000\n";
  CHECK(quota(files) == 1);
}

TEST(processors_of_damaged_texts) {
  CHECK(quota({}) == 0);
  for (const char* max : {"", "\n", "max", "100000", "-5 100000", "0 100000", "100000 0",
                          "100000 -1", "a b", "99999999999999999999999 1"})
    CHECK(quota(v2(max)) == 0, "'%s'", max);
  for (const char* quota_us : {"", "0\n", "-2\n", "many\n"})
    CHECK(quota(v1(quota_us, "100000\n")) == 0, "'%s'", quota_us);
  CHECK(quota(v1("100000\n", "")) == 0 && quota(v1("100000\n", "0\n")) == 0);
  Files files = v2("100000 100000\n");
  for (const char* groups : {"", "\n", "0", "0:", "0::", ":::", "nothing here\n", "0:cpu\n"}) {
    files[cgroup] = groups;
    CHECK(quota(files) <= 1, "'%s'", groups);
  }
  files[cgroup] = "0::/\n";
  for (const char* mounts : {"", "-", " - ", "- cgroup2 a b", "1 2 3 - cgroup2 a b\n",
                             "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2\n"}) {
    files[mountinfo] = mounts;
    CHECK(quota(files) == 0, "'%s'", mounts);
  }
}
