// SPDX-License-Identifier: BSD-2-Clause
// Compares two files that back guest memory, or checks what the workload left in one. It shares no
// code with what it checks: the workload's definition in docs/devel/workload.rst is implemented
// here a second time.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr uint64_t kPage = 4096;
constexpr int kSame = 0, kDifferent = 1, kTrouble = 2;
constexpr size_t kShown = 8;  // differing pages that are listed

constexpr std::string_view kUsage =
    "usage: ferry-memcmp A B\n"
    "       ferry-memcmp --workload seed=N,position=N,working-set=SIZE[,offset=SIZE]\n"
    "                    [,pattern=seq|rand][,fill=page|record] FILE\n"
    "       ferry-memcmp --help | --version\n\n"
    "Compares two files of guest memory; or checks that each page of a workload's working set\n"
    "holds what the last write to it, of `position` in all, left there. `offset` is where the\n"
    "working set begins in the file. Sizes may end in k, M or G.\n"
    "Exit status: 0 identical or correct, 1 not, 2 trouble.\n";

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "ferry-memcmp: %s\n", why.c_str());
    std::exit(kTrouble);
}

struct Memory {
    const unsigned char* bytes = nullptr;
    uint64_t size = 0;
};

Memory map_file(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info{};
    if (fd < 0 || fstat(fd, &info) != 0) give_up(path + ": " + std::strerror(errno));
    Memory memory{nullptr, static_cast<uint64_t>(info.st_size)};
    if (memory.size != 0) {
        void* const at = mmap(nullptr, memory.size, PROT_READ, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) give_up(path + ": mmap: " + std::strerror(errno));
        memory.bytes = static_cast<const unsigned char*>(at);
    }
    close(fd);
    return memory;
}

int compare(const std::string& left_path, const std::string& right_path) {
    const Memory left = map_file(left_path);
    const Memory right = map_file(right_path);
    if (left.size != right.size) {
        std::printf("sizes differ: %s has %llu bytes, %s has %llu\n", left_path.c_str(),
                    static_cast<unsigned long long>(left.size), right_path.c_str(),
                    static_cast<unsigned long long>(right.size));
        return kDifferent;
    }
    uint64_t pages = 0;
    for (uint64_t at = 0; at < left.size; at += kPage) {
        const uint64_t length = std::min(kPage, left.size - at);
        if (std::memcmp(left.bytes + at, right.bytes + at, length) == 0) continue;
        if (++pages > kShown) continue;
        const auto* const difference =
            std::mismatch(left.bytes + at, left.bytes + at + length, right.bytes + at).first;
        const auto offset = static_cast<uint64_t>(difference - left.bytes);
        std::printf("differ at offset 0x%llx (page %llu): %02x and %02x\n",
                    static_cast<unsigned long long>(offset),
                    static_cast<unsigned long long>(offset / kPage), left.bytes[offset],
                    right.bytes[offset]);
    }
    if (pages == 0) {
        std::printf("identical\n");
        return kSame;
    }
    std::printf("%llu of %llu pages differ\n", static_cast<unsigned long long>(pages),
                static_cast<unsigned long long>((left.size + kPage - 1) / kPage));
    return kDifferent;
}

// --- The workload.

struct Workload {
    uint64_t seed = 0, position = 0, pages = 0, offset = 0;
    bool random_order = false;
    uint64_t checked_bytes = kPage;  // of each page
};

uint64_t number(std::string_view key, std::string_view text) {
    std::string_view digits = text;
    uint64_t unit = 1;
    if (digits.ends_with('k')) unit = uint64_t{1} << 10;
    if (digits.ends_with('M')) unit = uint64_t{1} << 20;
    if (digits.ends_with('G')) unit = uint64_t{1} << 30;
    if (unit != 1) digits.remove_suffix(1);
    const int base = digits.starts_with("0x") ? 16 : 10;
    if (base == 16) digits.remove_prefix(2);
    uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size() || value > UINT64_MAX / unit) {
        give_up("bad value in " + std::string(key) + "=" + std::string(text));
    }
    return value * unit;
}

Workload parse_workload(std::string_view text) {
    Workload workload;
    std::optional<uint64_t> seed, position, working_set;
    while (!text.empty()) {
        const size_t end = std::min(text.find(','), text.size());
        const std::string_view part = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const size_t equals = std::min(part.find('='), part.size());
        const std::string_view key = part.substr(0, equals);
        const std::string_view value = part.substr(std::min(equals + 1, part.size()));
        if (key == "seed") {
            seed = number(key, value);
        } else if (key == "position") {
            position = number(key, value);
        } else if (key == "working-set") {
            working_set = number(key, value);
        } else if (key == "offset") {
            workload.offset = number(key, value);
        } else if (key == "pattern" && (value == "seq" || value == "rand")) {
            workload.random_order = value == "rand";
        } else if (key == "fill" && (value == "page" || value == "record")) {
            constexpr uint64_t kRecord = 64;
            workload.checked_bytes = value == "page" ? kPage : kRecord;
        } else {
            give_up("bad workload: '" + std::string(part) + "'");
        }
    }
    if (!seed || !position || !working_set || *working_set == 0 || *working_set % kPage != 0) {
        give_up("a workload needs seed, position and working-set, a multiple of 4k");
    }
    workload.seed = *seed;
    workload.position = *position;
    workload.pages = *working_set / kPage;
    return workload;
}

uint64_t scramble(uint64_t value) {
    value += 0x9e3779b97f4a7c15U;
    value ^= value >> 30;
    value *= 0xbf58476d1ce4e5b9U;
    value ^= value >> 27;
    value *= 0x94d049bb133111ebU;
    value ^= value >> 31;
    return value;
}

// The sequence number of the last write to each page; 0 where there was none.
std::vector<uint64_t> last_writes(const Workload& workload) {
    std::vector<uint64_t> last(workload.pages, 0);
    uint64_t missing = workload.pages;
    for (uint64_t sequence = workload.position; sequence != 0 && missing != 0; --sequence) {
        const uint64_t choice =
            workload.random_order ? scramble(workload.seed ^ scramble(sequence)) : sequence - 1;
        uint64_t& entry = last[choice % workload.pages];
        if (entry == 0) {
            entry = sequence;
            --missing;
        }
    }
    return last;
}

uint64_t word_at(const unsigned char* at) {
    uint64_t value = 0;
    for (unsigned i = 0; i < sizeof(value); ++i) value |= static_cast<uint64_t>(at[i]) << 8 * i;
    return value;
}

// The first wrong word of the page, or nothing.
std::optional<uint64_t> first_wrong_word(const Workload& workload, const unsigned char* page,
                                         uint64_t index, uint64_t sequence) {
    const uint64_t key = scramble(scramble(scramble(workload.seed) ^ sequence) ^ index);
    for (uint64_t i = 0; i < workload.checked_bytes / sizeof(uint64_t); ++i) {
        uint64_t wanted = scramble(key + i);
        if (i == 0) wanted = 0x31304c5752524546U;  // "FERRWL01"
        if (i == 1) wanted = sequence;
        if (i == 2) wanted = index;
        if (i == 3) wanted = workload.seed;
        if (word_at(page + i * sizeof(uint64_t)) != wanted) return i;
    }
    return std::nullopt;
}

int check_workload(const Workload& workload, const std::string& path) {
    const Memory memory = map_file(path);
    if (workload.offset > memory.size || workload.pages > (memory.size - workload.offset) / kPage) {
        give_up(path + " is too short for the working set");
    }
    const std::vector<uint64_t> last = last_writes(workload);
    uint64_t written = 0;
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < workload.pages; ++i) {
        if (last[i] == 0) continue;
        ++written;
        const unsigned char* const page = memory.bytes + workload.offset + i * kPage;
        const auto word = first_wrong_word(workload, page, i, last[i]);
        if (!word || ++wrong > kShown) continue;
        std::printf("page %llu: write %llu expected, but word %llu differs; it says write %llu\n",
                    static_cast<unsigned long long>(i), static_cast<unsigned long long>(last[i]),
                    static_cast<unsigned long long>(*word),
                    static_cast<unsigned long long>(word_at(page + sizeof(uint64_t))));
    }
    std::printf(
        "%llu of %llu pages written, %llu wrong\n", static_cast<unsigned long long>(written),
        static_cast<unsigned long long>(workload.pages), static_cast<unsigned long long>(wrong));
    if (wrong == 0) std::printf("correct\n");
    return wrong == 0 ? kSame : kDifferent;
}

}  // namespace

int main(int argc, char** argv) {
    const std::vector<std::string> arguments(argv + 1, argv + argc);
    if (arguments.size() == 1 && (arguments[0] == "--help" || arguments[0] == "-h")) {
        std::fputs(kUsage.data(), stdout);
        return kSame;
    }
    if (arguments.size() == 1 && arguments[0] == "--version") {
        std::puts("ferry-memcmp " FERRY_VERSION);
        return kSame;
    }
    if (arguments.size() == 3 && arguments[0] == "--workload") {
        return check_workload(parse_workload(arguments[1]), arguments[2]);
    }
    if (arguments.size() == 2 && !arguments[0].starts_with("--")) {
        return compare(arguments[0], arguments[1]);
    }
    std::fputs(kUsage.data(), stderr);
    return kTrouble;
}
