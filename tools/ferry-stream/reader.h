// SPDX-License-Identifier: BSD-2-Clause
// Reads a stream from its first byte to its last and checks it. Every byte is untrusted.
// Rules: docs/interop/stream-format.rst; what is checked under which name:
// docs/tools/ferry-stream.rst.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "tools/ferry-stream/commands.h"
#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/description.h"
#include "tools/ferry-stream/ram-body.h"
#include "tools/ferry-stream/resync.h"
#include "tools/ferry-stream/vfio-body.h"

namespace ferry::stream_tool {

class StreamReader {
 public:
    StreamReader(const Input& input, Findings& findings, Observer& observer, Detail detail)
        : input_(input),
          context_(input, findings, observer, detail),
          ram_(context_),
          vfio_(context_) {}

    // An Error: the file can't be read, or the observer failed. A broken stream is no Error, it
    // is told in the findings.
    Result<> run();

    const RamBodies& ram() const { return ram_; }
    const VfioBodies& vfio() const { return vfio_; }
    uint64_t sections() const { return section_count_; }  // START, PART, END and FULL

 private:
    // What START or FULL said of an id.
    struct Section {
        std::string idstr;
        uint32_t instance = 0;
        uint32_t version = 0;
        std::optional<uint64_t> started_at = std::nullopt;
        std::optional<uint64_t> ended_at = std::nullopt;
        std::optional<uint64_t> full_at = std::nullopt;
    };
    enum class Next : uint8_t { Element, End, Stop };

    Result<> read_all();
    // Tells what a failure means; what is left is an Error of run().
    Result<> end_of_reading(Error error);

    Result<bool> read_header();
    Result<> read_configuration();
    Result<> read_configuration_part(Node& parent);
    Result<> read_configuration_body(const std::string& name, uint64_t at, Node& node);
    Result<> read_page_bits(uint64_t at, Node& node);
    Result<> read_capabilities(uint64_t at, Node& node);
    void apply_capability(const std::string& name);

    Result<Next> read_element();
    Result<Next> read_eof(uint64_t at);

    Result<Next> read_section(SectionKind kind, uint64_t at);
    Result<Section*> read_first(SectionKind kind, uint64_t at, uint32_t id, Node& node);
    Section* open(SectionKind kind, uint64_t at, uint32_t id, Section named);
    Section* find_started(SectionKind kind, uint64_t at, uint32_t id, Node& node);
    void check_version(const Section& section, uint64_t at);
    void check_order(SectionKind kind, uint64_t at);
    void check_start_order(uint64_t at);
    void check_full_order(uint64_t at);
    Result<> read_body(const BodyOf& body, const Section& section, Node& node);
    Result<> parse_body(const BodyOf& body, const Section& section, Node& node);
    Result<> parse_device(const BodyOf& body, const Section& section, Node& node);
    Result<> look_again(const BodyOf& body, uint64_t begin, Node& node);
    Result<> guess_end(const BodyOf& body, Node& node);
    Result<uint64_t> read_footer(const BodyOf& body, Node& node);  // returns its size
    const DescribedBody* described(const Section& section) const;  // null if it is not
    IsStarted is_started() const;

    Result<> read_command(uint64_t at);
    Result<> read_known_command(const CommandInfo& info, uint16_t length, uint64_t at, Node& node);
    Result<> read_ping(uint64_t at, Node& node);
    Result<> read_package(uint64_t at, Node& node);
    void check_command_place(const CommandInfo& info, uint64_t at);
    void begin_switchover(uint64_t at);
    void check_package_end();

    void check_ends(uint64_t at);
    void check_described(const Description& description, uint64_t at);
    Result<> read_tail();
    Result<> read_description_element();
    void check_description_length(uint64_t at, uint32_t length);
    Result<> read_last_command();

    Result<> emit(Node& node, uint64_t at);

    const Input& input_;
    Context context_;
    RamBodies ram_;
    VfioBodies vfio_;
    std::optional<Description> description_;
    std::unordered_map<uint32_t, Section> sections_;
    std::map<std::pair<std::string, uint32_t>, uint32_t> ids_;  // the id of (idstr, instance)
    uint64_t section_count_ = 0;
    uint64_t open_ = 0;  // sections that were started and have no END so far
    uint64_t second_looks_ = 0;
    std::string where_ = "the header";  // what is read, for an early end
    uint64_t where_at_ = 0;

    std::optional<uint64_t> first_section_at_;
    std::optional<uint64_t> first_part_at_;
    std::optional<uint64_t> first_end_at_;
    std::optional<uint64_t> return_path_at_;
    std::optional<uint64_t> switchover_at_;
    std::optional<uint64_t> package_end_;  // while in a package
    uint64_t pings_ = 0;
};

}  // namespace ferry::stream_tool
